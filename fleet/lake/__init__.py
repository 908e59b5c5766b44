"""The data lake: Delta tables, what is asked of them, how they are kept small."""
