"""The receiver: takes batches from the broker, and commits them to the lake exactly once."""
