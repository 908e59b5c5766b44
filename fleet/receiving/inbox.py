"""Records which batches the receiver has taken in, so that each batch is delivered to the lake exactly once.

1. `take` takes a group of batches in one transaction: it gives the group a commit number N, marks the batches as known,
   and keeps their bytes, still sealed.
2. The caller appends the group to the lake as commit N (see `fleet.lake.tables`).
3. `finish` finishes commit N and drops the bytes.

The process may die at any moment.  After a restart, `undone` returns every group that may be missing from the lake, and
the commit number that `take` gave the group.  The commit numbers in the lake say which tables have the group.

Commit numbers follow the order in which batches arrive, never the order of `seq`.  Batches that arrive as 1, 3, 2 get
rising commit numbers, and all of them reach the lake.

    identity    (store)                          the random name of this file; a rebuilt file gets a new name
    shares      (share, last)                    the highest commit number of each share of partitions
    known, ...  fleet.receiving.known_batches    which batches were taken, and which epochs are forked
    pending     (share, number, row, ...)        batches of unfinished commits, with their sealed bytes
    catalogues  fleet.receiving.catalogue_table  the catalogues that batches refer to

A catalogue is stored in the same transaction as the batches that need it, so a crash keeps both or neither.  If both
are lost, the vehicle still has the batches and sends them again.  The receiver then asks for the catalogue.

Receivers of different shares may use one file.  Each share has its own commit numbers, and a lock lets only one process
serve a share.  When a receiver starts, it also completes the unfinished commits of shares that no receiver serves.  If
a receiver crashes and is restarted with other partitions, its batches therefore still reach the lake.
"""

import os
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
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
"""The format of the file, which is stored as PRAGMA user_version."""

_SCHEMA: Final = f"""
CREATE TABLE identity (store TEXT NOT NULL) STRICT;
CREATE TABLE shares (share TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
    share TEXT NOT NULL, number INTEGER NOT NULL, row INTEGER NOT NULL,
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,
    received_at_us INTEGER NOT NULL, sealed BLOB NOT NULL, catalogue BLOB,
    PRIMARY KEY (share, number, row)
) STRICT;
CREATE UNIQUE INDEX pending_batch ON pending (vehicle, epoch, seq, digest);
{known_batches.SCHEMA};
{catalogue_table.SCHEMA}"""


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


@dataclass(frozen=True, slots=True)
class Taken:
    """Holds the outcome of taking a group.

    `commit` holds the batches that were new, or is None if there were none.  `forking` has, of these, the first batch
    of each epoch that has forked now (see fleet.lake.batch_key).  `stored` are batches that are already in the lake.
    `held` are batches of a commit that is not finished, so they may be missing from the lake.  The caller may not
    acknowledge `held` batches before their commit is finished.
    """

    commit: Commit | None
    stored: tuple[BatchKey, ...]
    held: tuple[BatchKey, ...]
    forking: tuple[BatchKey, ...] = ()


class Inbox:
    """Holds the inbox of one share of the partitions.  Only one thread may use it at a time.

    Every method raises Transient if the disk refuses, and then changes nothing.
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
        """Lock the share, and open the inbox at `path`.

        If the file does not exist, it is created, and all batches that `known()` returns count as taken and stored.
        `catalogues` is the limit of catalogues for each vehicle.

        Raises: Permanent if another receiver serves this share, or if the file is not an inbox of this format;
        Transient if the disk refuses.
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
        """Return the highest commit number that this share ever used, or 0 if it used none."""
        row = self._database.row("SELECT last FROM shares WHERE share = ?", (self._share,))
        return 0 if row is None else int(row[0])

    def is_stored(self, key: BatchKey) -> bool:
        """Return whether the lake has the batch: it was taken lately, and its commit is finished."""
        return self._known.has_recent(key) and not self._is_pending(key)

    def unsure(self, batches: Sequence[SealedBatch]) -> list[BatchKey]:
        """Return those of `batches` of which only the lake knows whether they were taken.

        Their numbers were taken, but perhaps for other batches.
        """
        keys = dict.fromkeys(batch.key for batch in batches)
        return [
            key
            for key in keys
            if self._known.has_number(key) and not self._known.has_recent(key) and not self._is_pending(key)
        ]

    def take(
        self,
        batches: Sequence[SealedBatch],
        catalogues: Sequence[CatalogueContent] = (),
        *,
        in_lake: Collection[BatchKey] = (),
    ) -> Taken:
        """Store those of `batches` that are new as one commit, and store all `catalogues`.

        Both are stored in one durable transaction.  `in_lake` has those of the `unsure` batches that the lake has.
        """
        new: dict[BatchKey, SealedBatch] = {}
        stored: list[BatchKey] = []
        held: list[BatchKey] = []
        number = 0
        with self._database.transaction():
            self.catalogues.keep(catalogues)
            for batch in batches:
                if batch.key in new:
                    continue
                if not self._known.has_number(batch.key):
                    new[batch.key] = batch
                elif self._is_pending(batch.key):
                    held.append(batch.key)
                elif batch.key in in_lake or self._known.has_recent(batch.key):
                    stored.append(batch.key)
                else:
                    new[batch.key] = batch
            forking = self._known.add(new) if new else []
            if new:
                number = self._add_commit(tuple(new.values()))
            self.catalogues.mark_used(
                {(batch.key.vehicle, batch.catalogue) for batch in batches if batch.catalogue is not None}
            )
            # Eviction comes last, so that it spares the catalogues that this commit uses.
            self.catalogues.evict({catalogue.vehicle for catalogue in catalogues})
        commit = Commit(number, tuple(new.values())) if new else None
        return Taken(commit, tuple(stored), tuple(held), tuple(forking))

    def finish(self, number: int) -> None:
        """Record that commit `number` is in the lake, and delete its sealed batches from the inbox."""
        with self._database.transaction():
            self._database.write("DELETE FROM pending WHERE share = ? AND number = ?", (self._share, number))

    def undone(self) -> list[Commit]:
        """Return the unfinished commits of this share, in the order of their numbers."""
        rows = self._database.rows(
            "SELECT number, vehicle, epoch, seq, digest, sealed, received_at_us, catalogue FROM pending"
            " WHERE share = ? ORDER BY number, row",
            (self._share,),
        )
        groups: dict[int, list[SealedBatch]] = {}
        for number, vehicle, epoch, seq, digest, *rest in rows:
            groups.setdefault(number, []).append(SealedBatch(BatchKey(vehicle, epoch, seq, digest), *rest))
        return [Commit(number, tuple(batches)) for number, batches in groups.items()]

    def adopt(self) -> "Generator[Inbox]":
        """Yield the inbox of every other share that has unfinished commits and no receiver.

        A share stays locked until the caller asks for the next share or closes the generator.
        """
        query = "SELECT DISTINCT share FROM pending WHERE share <> ? ORDER BY share"
        for (share,) in self._database.rows(query, (self._share,)):
            with adopting(self._database.path):
                try:
                    lock = try_lock_share(self._database.path, share)
                except Permanent:
                    # The share's own receiver is running, so it completes its commits itself.
                    continue
                try:
                    yield Inbox(self._database, share, lock, self._store)
                finally:
                    os.close(lock)

    def _add_commit(self, batches: Sequence[SealedBatch]) -> int:
        """Write `batches` to the table `pending` under the next number of this share, and return the number."""
        number = self.last_number + 1
        self._database.write(
            "INSERT INTO shares VALUES (?1, ?2) ON CONFLICT (share) DO UPDATE SET last = ?2", (self._share, number)
        )
        self._database.write_many(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (self._share, number, row, *_columns(each.key), each.received_at_us, each.sealed, each.catalogue)
                for row, each in enumerate(batches)
            ],
        )
        return number

    def _is_pending(self, key: BatchKey) -> bool:
        query = "SELECT 1 FROM pending WHERE vehicle = ? AND epoch = ? AND seq = ? AND digest = ?"
        return self._database.row(query, _columns(key)) is not None


def _columns(key: BatchKey) -> tuple[str, str, int, bytes]:
    return key.vehicle, key.epoch, key.seq, key.digest


def _prepare(database: Database, known: Callable[[], Iterable[BatchKey]]) -> str:
    """Create the tables if the file is new, and return the random name of the file.  Call this in a transaction.

    Raises: Permanent if the file has another format.
    """
    (version,) = database.rows("PRAGMA user_version")[0]
    if version == FORMAT:
        return str(database.rows("SELECT store FROM identity")[0][0])
    # SQLite gives a new file the version 0.
    if version != 0:
        raise Permanent(
            f"{database.path} has format {version}, but this receiver reads format {FORMAT}. Use the release that "
            "wrote the file. Or move it away: the receiver then rebuilds it from the lake."
        )
    # The statements run one by one, because executescript would commit the transaction first.
    for statement in _SCHEMA.split(";"):
        database.write(statement)
    database.write(f"PRAGMA user_version = {FORMAT}")
    # The lake may hold commit numbers of an earlier file.  With a new name, they do not count for this file.
    store = uuid.uuid4().hex
    database.write("INSERT INTO identity VALUES (?)", (store,))
    KnownBatches(database).learn(known())
    return store
