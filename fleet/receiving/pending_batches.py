"""Manages the table `pending`, which holds the batches of unfinished commits with their sealed bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.lake.batch_key import BatchKey
from fleet.receiving.database import Database

SCHEMA: Final = """
CREATE TABLE pending (
    share TEXT NOT NULL, number INTEGER NOT NULL, row INTEGER NOT NULL,
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,
    received_at_us INTEGER NOT NULL, sealed BLOB NOT NULL, catalogue BLOB,
    PRIMARY KEY (share, number, row)
) STRICT;
CREATE UNIQUE INDEX pending_batch ON pending (vehicle, epoch, seq, digest)"""


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """Holds a batch as it arrived.

    `received_at_us` is the time of the receiver's wall clock in microseconds since the Unix epoch.  `catalogue` is the
    digest of the catalogue that the batch refers to, or None.
    """

    key: BatchKey
    sealed: bytes
    received_at_us: int
    catalogue: bytes | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Holds a group of batches that are appended to the lake together, as commit `number`."""

    number: int
    batches: tuple[SealedBatch, ...]


class PendingBatches:
    """Reads and writes batches of unfinished commits.  Methods that write must be called inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has(self, key: BatchKey) -> bool:
        """Return whether the batch belongs to an unfinished commit."""
        query = "SELECT 1 FROM pending WHERE vehicle = ? AND epoch = ? AND seq = ? AND digest = ?"
        return self._database.row(query, _columns(key)) is not None

    def keys(self) -> list[BatchKey]:
        """Return the keys of all batches of unfinished commits."""
        rows = self._database.rows("SELECT vehicle, epoch, seq, digest FROM pending")
        return [BatchKey(*row) for row in rows]

    def shares(self) -> list[str]:
        """Return the shares that have unfinished commits."""
        return [share for (share,) in self._database.rows("SELECT DISTINCT share FROM pending ORDER BY share")]

    def commits(self, share: str) -> list[Commit]:
        """Return the unfinished commits of a share, in the order of their numbers."""
        rows = self._database.rows(
            "SELECT number, vehicle, epoch, seq, digest, sealed, received_at_us, catalogue FROM pending"
            " WHERE share = ? ORDER BY number, row",
            (share,),
        )
        groups: dict[int, list[SealedBatch]] = {}
        for number, vehicle, epoch, seq, digest, *rest in rows:
            groups.setdefault(number, []).append(SealedBatch(BatchKey(vehicle, epoch, seq, digest), *rest))
        return [Commit(number, tuple(batches)) for number, batches in groups.items()]

    def add(self, share: str, number: int, batches: Sequence[SealedBatch]) -> None:
        """Add the batches of a commit."""
        self._database.write_many(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (share, number, row, *_columns(each.key), each.received_at_us, each.sealed, each.catalogue)
                for row, each in enumerate(batches)
            ],
        )

    def finish(self, share: str, number: int) -> None:
        """Delete the batches of a commit."""
        self._database.write("DELETE FROM pending WHERE share = ? AND number = ?", (share, number))

    def drop(self, keys: Iterable[BatchKey]) -> None:
        """Delete these batches."""
        self._database.write_many(
            "DELETE FROM pending WHERE vehicle = ? AND epoch = ? AND seq = ? AND digest = ?", map(_columns, keys)
        )


def _columns(key: BatchKey) -> tuple[str, str, int, bytes]:
    return key.vehicle, key.epoch, key.seq, key.digest
