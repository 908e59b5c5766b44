"""Fuzzes every reader of files that other programs write: `python -m tests.fuzz`."""
