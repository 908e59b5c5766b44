"""Damaged input for every reader of files that other programs wrote: `python -m tests.fuzz`."""
