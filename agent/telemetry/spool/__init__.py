"""Where sealed batches wait, durably: files, their index, and the ledger of what was lost."""
