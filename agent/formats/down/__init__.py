"""Formats of what a fleet publishes: bundles and the documents in them."""
