"""Manages the tables that say which batches were taken.

    known   the sequence numbers of all taken batches, as intervals for each epoch
    recent  the digests of the batches that were taken last; RECENT bounds the table
    forks   the epochs in which one number names several batches

A number in `known` does not tell which batch was taken under it.  A digest in `recent` does.  For an older batch, only
the lake can tell (`fleet.lake.tables.Lake.stored`).
"""

from collections.abc import Collection, Iterable
from typing import Final

from fleet.lake.batch_key import BatchKey
from fleet.receiving.database import Database
from fleet.receiving.intervals import Interval, joined, without

RECENT: Final = 250_000
"""The limit of digests in `recent`, each of which takes some 60 bytes.

After an outage, each vehicle sends again what it had in flight, which is 64 batches unless its settings differ.  The
limit is enough for some 4,000 vehicles.  Beyond it, the receiver asks the lake, which takes longer.
"""

SCHEMA: Final = """
CREATE TABLE known (
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (vehicle, epoch, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE recent (number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE forks (vehicle TEXT NOT NULL, epoch TEXT NOT NULL, PRIMARY KEY (vehicle, epoch)) STRICT, WITHOUT ROWID"""


class KnownBatches:
    """Remembers all batches that were ever taken.  Call methods that write in a transaction."""

    def __init__(self, database: Database, *, recent: int = RECENT) -> None:
        self._database = database
        self._limit = recent

    def has_number(self, key: BatchKey) -> bool:
        """Return whether a batch with the number of `key` was ever taken.  That batch may have another digest."""
        before = self._last_from(key)
        return before is not None and before[1] >= key.seq

    def has_recent(self, key: BatchKey) -> bool:
        """Return whether this batch was taken lately.  If not, it may have been taken earlier."""
        return self._database.row("SELECT 1 FROM recent WHERE digest = ?", (key.digest,)) is not None

    def add(self, keys: Collection[BatchKey]) -> list[BatchKey]:
        """Record batches that were not taken before, and return the first batch of each epoch that they fork.

        An epoch forks when a batch has a number that another batch has.
        """
        forking = [key for key in keys if not self._add_number(key) and self._add_fork(key)]
        self._database.write_many("INSERT OR IGNORE INTO recent (digest) VALUES (?)", [(key.digest,) for key in keys])
        oldest = "(SELECT max(number) FROM recent) - ?"
        self._database.write(f"DELETE FROM recent WHERE number <= {oldest}", (self._limit,))  # noqa: S608 (a constant)
        return forking

    def learn(self, keys: Iterable[BatchKey]) -> None:
        """Record the batches of a lake.

        Digests are kept only for the last batches in the order of their keys, RECENT of them.  The lake is asked about
        all other batches.
        """
        ordered = sorted(keys)
        for start in range(0, len(ordered), self._limit):
            self.add(ordered[start : start + self._limit])

    def forget(self, key: BatchKey) -> None:
        """Record that a batch was not taken after all, so that it is taken when it comes again."""
        self._database.write("DELETE FROM recent WHERE digest = ?", (key.digest,))
        whole = self._last_from(key)
        # In a forked epoch, another batch may have the number, so the number stays known.  The lake is asked about the
        # batch when it comes again.
        if whole is None or whole[1] < key.seq or self._is_forked(key):
            return
        epoch = key.vehicle, key.epoch
        self._database.write("DELETE FROM known WHERE vehicle = ? AND epoch = ? AND first = ?", (*epoch, whole[0]))
        self._database.write_many(
            "INSERT INTO known VALUES (?, ?, ?, ?)", [(*epoch, *rest) for rest in without(key.seq, whole)]
        )

    def numbers(self) -> list[tuple[str, str, int, int]]:
        """Return all intervals of known numbers, as (vehicle, epoch, first, last)."""
        return self._database.rows("SELECT vehicle, epoch, first, last FROM known")

    def forget_vehicles(self, vehicles: Iterable[str]) -> None:
        """Record that no batch of the vehicles was taken.  Forget the digests of other vehicles, too."""
        named = [(vehicle,) for vehicle in vehicles]
        self._database.write_many("DELETE FROM known WHERE vehicle = ?", named)
        self._database.write_many("DELETE FROM forks WHERE vehicle = ?", named)
        # A digest does not say which vehicle it belongs to, so all digests go.  The lake is asked about the batches of
        # the other vehicles.
        self._database.write("DELETE FROM recent")

    def _add_number(self, key: BatchKey) -> bool:
        """Record the number of a batch, and return whether it is new."""
        epoch = key.vehicle, key.epoch
        after = self._database.row(
            "SELECT first, last FROM known WHERE vehicle = ? AND epoch = ? AND first = ?", (*epoch, key.seq + 1)
        )
        whole = joined(key.seq, self._last_from(key), after)
        if whole is None:
            return False
        self._database.write(
            "DELETE FROM known WHERE vehicle = ? AND epoch = ? AND first BETWEEN ? AND ?", (*epoch, *whole)
        )
        self._database.write("INSERT INTO known VALUES (?, ?, ?, ?)", (*epoch, *whole))
        return True

    def _add_fork(self, key: BatchKey) -> bool:
        """Record that the epoch of a batch is forked, and return whether that is new."""
        if self._is_forked(key):
            return False
        self._database.write("INSERT INTO forks VALUES (?, ?)", (key.vehicle, key.epoch))
        return True

    def _is_forked(self, key: BatchKey) -> bool:
        query = "SELECT 1 FROM forks WHERE vehicle = ? AND epoch = ?"
        return self._database.row(query, (key.vehicle, key.epoch)) is not None

    def _last_from(self, key: BatchKey) -> Interval | None:
        """Return the last interval of the key's epoch that begins at or before the key's sequence number, or None."""
        row = self._database.row(
            "SELECT first, last FROM known WHERE vehicle = ? AND epoch = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (key.vehicle, key.epoch, key.seq),
        )
        return None if row is None else (row[0], row[1])
