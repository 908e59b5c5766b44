"""Formats of what a vehicle sends: batches, their bodies, acknowledgements."""
