"""The data lake: its Delta tables, queries over the tables, and their compaction."""
