"""Turns frames into sealed batches, stores the batches in the spool and sends them to the fleet."""
