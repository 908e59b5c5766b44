"""What crosses the air: schemas, codec, seal, acknowledgements, topics, campaign documents.  All pure."""
