"""Brings documents to a fleet in stages, and compares what the fleet wants with what its vehicles report."""
