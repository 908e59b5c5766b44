"""The formats that a fleet publishes: bundles, and the kinds of documents in them."""
