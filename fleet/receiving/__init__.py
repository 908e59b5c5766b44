"""From batches on the wire to commits in the lake."""
