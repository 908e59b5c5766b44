"""From windows to sealed batches in the spool."""
