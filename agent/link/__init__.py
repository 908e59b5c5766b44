"""The link to the broker: `keeper` keeps it up, by the state table of `session` and with the client of `mqtt`."""
