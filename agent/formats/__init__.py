"""The formats that vehicle and fleet exchange: telemetry, acknowledgements, pushed documents and topics.  Pure."""
