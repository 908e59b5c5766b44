"""What the receiver has taken in: the memory that makes delivery exactly once.

A group of batches is *taken*: in one transaction it gets a commit number N, its batches are marked as known, and their
bytes are kept, sealed as they came.  The caller then appends the group to the lake under the transaction version N and
*finishes* N, which drops the bytes.  Whatever moment the process dies at, `undone` returns every group that may be
missing from the lake, under the number that it had; the lake's own transaction versions tell which of its tables have
it.  Numbers follow the order in which batches arrive, never the order of `seq`: batches that arrive as 1, 3, 2 get
rising numbers, and all of them land.

    identity    (store)                          the random name of this file; a rebuilt file gets another
    shares      (share, last)                    the last commit number of each share of partitions
    known       fleet.receiving.known_batches    which batches were taken
    pending     (share, number, row, ...)        groups that are not finished, with their sealed bytes
    catalogues  fleet.receiving.catalogue_table  what batches refer to

Catalogues lie beside the batches that need them, so after a crash both are here or neither is.  In the second case the
vehicle still has the batches, and is asked for the catalogue.

Receivers of different shares may use one file.  Each share has its own numbers, and a lock lets one process serve it.
A receiver that starts adopts the unfinished commits of shares that no receiver serves, one share after the other, so a
crash strands nothing when the partitions on the command line change.
"""

import os
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent.errors import Permanent
from fleet.lake.batch_key import BatchKey
from fleet.receiving import catalogue_table, known_batches
from fleet.receiving.catalogue_table import CATALOGUES, CatalogueContent, CatalogueTable
from fleet.receiving.database import Database
from fleet.receiving.known_batches import KnownBatches
from fleet.receiving.share_lock import adopting, lock_share, try_lock_share

FORMAT: Final = 1
"""Stands in the file as PRAGMA user_version."""

_SCHEMA: Final = f"""
CREATE TABLE identity (store TEXT NOT NULL) STRICT;
CREATE TABLE shares (share TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
    share TEXT NOT NULL, number INTEGER NOT NULL, row INTEGER NOT NULL,
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    received_at_us INTEGER NOT NULL, sealed BLOB NOT NULL, catalogue BLOB,
    PRIMARY KEY (share, number, row)
) STRICT;
CREATE UNIQUE INDEX pending_batch ON pending (vehicle, epoch, seq);
{known_batches.SCHEMA};
{catalogue_table.SCHEMA}"""


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch as it came; `received_at_us` is the receiver's wall clock (Unix epoch).

    `catalogue` is the digest of the catalogue that the batch refers to.
    """

    key: BatchKey
    sealed: bytes
    received_at_us: int
    catalogue: bytes | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A group of batches that lands in the lake together, under transaction version `number`."""

    number: int
    batches: tuple[SealedBatch, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome for a group: `commit` holds the batches that were new.

    The batches in `stored` are in the lake already.  Those in `held` were taken before but are not finished: only the
    receiver that took them may say that they are stored.
    """

    commit: Commit | None
    stored: tuple[BatchKey, ...]
    held: tuple[BatchKey, ...]


class Inbox:
    """The inbox of one share of the partitions.  One thread uses it at a time.

    Every method raises Transient where the disk refuses; nothing is changed then.
    """

    def __init__(self, database: Database, share: str, lock: int, store: str, *, catalogues: int = CATALOGUES) -> None:
        self.catalogues = CatalogueTable(database, limit=catalogues)
        self.app_id = f"headunit-receiver/{store}/{share}"
        self._database = database
        self._known = KnownBatches(database)
        self._share = share
        self._lock = lock
        self._store = store

    @classmethod
    def open(
        cls, path: Path, *, share: str, known: Callable[[], Iterable[BatchKey]], catalogues: int = CATALOGUES
    ) -> Self:
        """Open the inbox at `path`, or create one that knows the batches `known()` from the start.

        `catalogues` is how many of them each vehicle may have.

        Raises: Permanent where another receiver serves this share or the file is not an inbox of this format;
        Transient where the disk refuses.
        """
        lock = lock_share(path, share)
        try:
            database = Database.open(path)
        except BaseException:
            os.close(lock)
            raise
        try:
            with database.transaction():
                store = _prepare(database, known)
        except BaseException:
            database.close()
            os.close(lock)
            raise
        return cls(database, share, lock, store, catalogues=catalogues)

    def close(self) -> None:
        """Close the file and release the share."""
        self._database.close()
        os.close(self._lock)

    @property
    def last_number(self) -> int:
        """Return the highest commit number that this share was ever given; 0 before the first."""
        row = self._database.row("SELECT last FROM shares WHERE share = ?", (self._share,))
        return 0 if row is None else int(row[0])

    def is_stored(self, key: BatchKey) -> bool:
        """Tell whether the batch was taken and finished, so that the lake has it."""
        return self._known.has(key) and not self._is_pending(key)

    def take(self, batches: Sequence[SealedBatch], catalogues: Sequence[CatalogueContent] = ()) -> Taken:
        """Keep the new ones of `batches` durably, as one commit, and all of `catalogues`."""
        new: dict[BatchKey, SealedBatch] = {}
        stored: list[BatchKey] = []
        held: list[BatchKey] = []
        number = 0
        with self._database.transaction():
            self.catalogues.keep(catalogues)
            for batch in batches:
                if batch.key in new:
                    continue
                if not self._known.has(batch.key):
                    self._known.add(batch.key)
                    new[batch.key] = batch
                elif self._is_pending(batch.key):
                    held.append(batch.key)
                else:
                    stored.append(batch.key)
            if new:
                number = self._add_commit(tuple(new.values()))
            self.catalogues.mark_used(
                {(batch.key.vehicle, batch.catalogue) for batch in batches if batch.catalogue is not None}
            )
            # Evicting comes last: the catalogues of this commit count as used, and pending needs them.
            self.catalogues.evict({catalogue.vehicle for catalogue in catalogues})
        commit = Commit(number, tuple(new.values())) if new else None
        return Taken(commit, tuple(stored), tuple(held))

    def finish(self, number: int) -> None:
        """Record that commit `number` is in the lake, and drop its bytes."""
        with self._database.transaction():
            self._database.write("DELETE FROM pending WHERE share = ? AND number = ?", (self._share, number))

    def undone(self) -> list[Commit]:
        """Return the commits of this share that were taken and not finished, in the order of their numbers."""
        rows = self._database.rows(
            "SELECT number, vehicle, epoch, seq, sealed, received_at_us, catalogue FROM pending"
            " WHERE share = ? ORDER BY number, row",
            (self._share,),
        )
        groups: dict[int, list[SealedBatch]] = {}
        for number, vehicle, epoch, seq, *rest in rows:
            groups.setdefault(number, []).append(SealedBatch(BatchKey(vehicle, epoch, seq), *rest))
        return [Commit(number, tuple(batches)) for number, batches in groups.items()]

    def adopt(self) -> "Generator[Inbox]":
        """Yield the inbox of each other share that has unfinished commits and no receiver.

        The lock of the share is held until the caller asks for the next one; closing the generator releases it.
        """
        query = "SELECT DISTINCT share FROM pending WHERE share <> ? ORDER BY share"
        for (share,) in self._database.rows(query, (self._share,)):
            with adopting(self._database.path):
                try:
                    lock = try_lock_share(self._database.path, share)
                except Permanent:
                    # The share's own receiver runs, and lands its commits itself.
                    continue
                try:
                    yield Inbox(self._database, share, lock, self._store)
                finally:
                    os.close(lock)

    def _add_commit(self, batches: Sequence[SealedBatch]) -> int:
        """Enter `batches` in `pending` under the next number of this share, and return that number."""
        number = self.last_number + 1
        self._database.write(
            "INSERT INTO shares VALUES (?1, ?2) ON CONFLICT (share) DO UPDATE SET last = ?2", (self._share, number)
        )
        self._database.write_many(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (self._share, number, row, *_columns(each.key), each.received_at_us, each.sealed, each.catalogue)
                for row, each in enumerate(batches)
            ],
        )
        return number

    def _is_pending(self, key: BatchKey) -> bool:
        query = "SELECT 1 FROM pending WHERE vehicle = ? AND epoch = ? AND seq = ?"
        return self._database.row(query, _columns(key)) is not None


def _columns(key: BatchKey) -> tuple[str, str, int]:
    return key.vehicle, key.epoch, key.seq


def _prepare(database: Database, known: Callable[[], Iterable[BatchKey]]) -> str:
    """Make the tables where the file is new, and return the name of the store; the caller holds a transaction.

    Raises: Permanent where the file has another format.
    """
    (version,) = database.rows("PRAGMA user_version")[0]
    if version == FORMAT:
        return str(database.rows("SELECT store FROM identity")[0][0])
    # SQLite gives a new file the version 0.
    if version != 0:
        raise Permanent(
            f"{database.path} has format {version}, and this receiver reads format {FORMAT}: use the release that "
            "wrote it, or move it away, and the receiver rebuilds it from the lake"
        )
    # One by one, because executescript would commit the transaction first.
    for statement in _SCHEMA.split(";"):
        database.write(statement)
    database.write(f"PRAGMA user_version = {FORMAT}")
    # A new name: in the lake, commit numbers of the old file must not count for this one.
    store = uuid.uuid4().hex
    database.write("INSERT INTO identity VALUES (?)", (store,))
    batches = KnownBatches(database)
    for key in sorted(known()):
        batches.add(key)
    return store
