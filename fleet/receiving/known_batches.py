"""Manages the table `known`, which holds the sequence numbers of all taken batches, as intervals for each epoch."""

from typing import Final

from fleet.lake.batch_key import BatchKey
from fleet.receiving.database import Database
from fleet.receiving.intervals import Interval, joined

SCHEMA: Final = """
CREATE TABLE known (
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (vehicle, epoch, first)
) STRICT, WITHOUT ROWID"""


class KnownBatches:
    """Holds the keys of all batches that were ever taken."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has(self, key: BatchKey) -> bool:
        """Return whether the batch was ever taken."""
        before = self._last_from(key)
        return before is not None and before[1] >= key.seq

    def add(self, key: BatchKey) -> None:
        """Record the key of a batch, unless it is known already.  Call this in a transaction."""
        epoch = key.vehicle, key.epoch
        after = self._database.row(
            "SELECT first, last FROM known WHERE vehicle = ? AND epoch = ? AND first = ?", (*epoch, key.seq + 1)
        )
        whole = joined(key.seq, self._last_from(key), after)
        if whole is None:
            return
        self._database.write(
            "DELETE FROM known WHERE vehicle = ? AND epoch = ? AND first BETWEEN ? AND ?", (*epoch, *whole)
        )
        self._database.write("INSERT INTO known VALUES (?, ?, ?, ?)", (*epoch, *whole))

    def _last_from(self, key: BatchKey) -> Interval | None:
        """Return the last interval of the key's epoch that begins at or before the key's sequence number, or None."""
        row = self._database.row(
            "SELECT first, last FROM known WHERE vehicle = ? AND epoch = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (key.vehicle, key.epoch, key.seq),
        )
        return None if row is None else (row[0], row[1])
