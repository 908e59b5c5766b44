"""Compares the agent with the tools in use today, in one run and on the same frames (`make bench`)."""
