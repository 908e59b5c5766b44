"""Encodes and seals windows, and stores them in the spool as batches."""
