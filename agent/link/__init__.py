"""The link to the broker: state table (`session`, pure), address and TLS (`endpoint`), client (`mqtt`)."""
