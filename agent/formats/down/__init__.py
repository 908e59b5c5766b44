"""Formats of what a fleet publishes: bundles, and the kinds of documents in them."""
