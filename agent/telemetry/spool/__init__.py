"""Stores sealed batches durably until they are acknowledged, and keeps the ledger of losses."""
