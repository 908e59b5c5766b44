"""The formats of telemetry: batches, their bodies, and the acknowledgements that answer them."""
