"""Up: from frames to batches in the spool and over the air."""
