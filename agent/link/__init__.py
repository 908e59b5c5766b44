"""Keep the vehicle connected to the broker.  `keeper` connects, `session` decides when, and `mqtt` is the client."""
