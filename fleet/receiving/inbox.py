"""Records which batches the receiver has taken in, so that each batch is delivered to the lake exactly once.

1. `take` takes a group of batches in one transaction: it gives the group a commit number N, marks the batches as known,
   and keeps their bytes, still sealed.
2. The caller appends the group to the lake as commit N (see `fleet.lake.tables`).
3. `finish` finishes commit N and drops the bytes.

The process may die at any moment.  After a restart, `undone` returns every group that may be missing from the lake, and
the commit number that `take` gave the group.  The commit numbers in the lake say which tables have the group.

Commit numbers follow the order in which batches arrive, never the order of `seq`.  Batches that arrive as 1, 3, 2 get
rising commit numbers, and all of them reach the lake.

    shares      (share, store, last)             the random name and the highest commit number of each share
    known, ...  fleet.receiving.known_batches    which batches were taken, and which epochs are forked
    pending     fleet.receiving.pending_batches  batches of unfinished commits, with their sealed bytes
    lakes, ...  fleet.receiving.lake_record      what the inbox knows about the lake
    catalogues  fleet.receiving.catalogue_table  the catalogues that batches refer to

A catalogue is stored in the same transaction as the batches that need it, so a crash keeps both or neither.  If both
are lost, the vehicle still has the batches and sends them again.  The receiver then asks for the catalogue.

Receivers of different shares may use one file.  Each share has its own commit numbers, and a lock lets only one process
serve a share.  When a receiver starts, it also completes the unfinished commits of shares that no receiver serves.  If
a receiver crashes and is restarted with other partitions, its batches therefore still reach the lake.

The file or the lake may be put back to an earlier state.  `fleet.receiving.reconcile` compares them at each start.
"""

import contextlib
import os
import uuid
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agent.errors import Permanent
from fleet.lake.batch_key import BatchKey
from fleet.receiving import catalogue_table, known_batches, lake_record, pending_batches
from fleet.receiving.catalogue_table import CATALOGUES, CatalogueContent, CatalogueTable
from fleet.receiving.database import Database
from fleet.receiving.known_batches import KnownBatches
from fleet.receiving.lake_record import LakeRecord
from fleet.receiving.pending_batches import Commit, PendingBatches, SealedBatch
from fleet.receiving.share import Share
from fleet.receiving.share_lock import adopting, lock_share, try_lock_share

FORMAT: Final = 2
"""The format of the file, which is stored as PRAGMA user_version."""

_SCHEMA: Final = f"""
CREATE TABLE shares (share TEXT PRIMARY KEY, store TEXT NOT NULL, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
{pending_batches.SCHEMA};
{lake_record.SCHEMA};
{known_batches.SCHEMA};
{catalogue_table.SCHEMA}"""


@dataclass(frozen=True, slots=True)
class Taken:
    """Holds the outcome of taking a group.

    `commit` holds the batches that were new, or is None if there were none.  For each epoch that
    the new batches fork (see fleet.lake.batch_key), `forking` has the first of them.  `stored` are batches that are
    already in the lake.  `held` are batches of a commit that is not finished, so they may be missing from the lake.
    The caller may not acknowledge `held` batches before their commit is finished.
    """

    commit: Commit | None
    stored: tuple[BatchKey, ...]
    held: tuple[BatchKey, ...]
    forking: tuple[BatchKey, ...] = ()


class Inbox:
    """Holds the inbox of one share of the partitions.  Only one thread may use it at a time.

    Every method raises Transient if the disk refuses, and then changes nothing.
    """

    def __init__(self, database: Database, share: str, lock: int, *, catalogues: int = CATALOGUES) -> None:
        self.catalogues = CatalogueTable(database, limit=catalogues)
        self.known = KnownBatches(database)
        self.pending = PendingBatches(database)
        self.record = LakeRecord(database)
        self.share = share
        self._database = database
        self._lock = lock
        self.app_id = self._current_app_id()

    @classmethod
    def open(cls, path: Path, *, share: str, catalogues: int = CATALOGUES) -> Self:
        """Lock the share, and open the inbox at `path`.

        If the file does not exist, it is created, and knows nothing.  `catalogues` is the limit of catalogues for each
        vehicle.

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
                _prepare(database)
                database.write("INSERT OR IGNORE INTO shares VALUES (?, ?, 0)", (share, uuid.uuid4().hex))
        except BaseException:
            database.close()
            os.close(lock)
            raise
        return cls(database, share, lock, catalogues=catalogues)

    def close(self) -> None:
        """Close the file and release the share."""
        self._database.close()
        os.close(self._lock)

    @property
    def last_number(self) -> int:
        """Return the highest commit number that this share ever used, or 0 if it used none."""
        return int(self._database.rows("SELECT last FROM shares WHERE share = ?", (self.share,))[0][0])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a `with` block in a transaction.  Meanwhile no other receiver of this file can write to it."""
        with self._database.transaction():
            yield

    def renamed(self) -> bool:
        """Return whether another process has given this share a new app id (see `rename`)."""
        return self.app_id != self._current_app_id()

    def rename(self) -> None:
        """Give new app ids to this share and to all shares that overlap it.  Call this in a transaction.

        Commit numbers in the lake that have the old app ids then mean nothing for this file.
        """
        mine = Share.of_name(self.share).partitions
        shares = [share for (share,) in self._database.rows("SELECT share FROM shares")]
        overlapping = [share for share in shares if set(mine) & set(Share.of_name(share).partitions)]
        self._database.write_many(
            "UPDATE shares SET store = ? WHERE share = ?", [(uuid.uuid4().hex, share) for share in overlapping]
        )
        self.record.forget_landed(overlapping)
        self.app_id = self._current_app_id()

    def is_stored(self, key: BatchKey) -> bool:
        """Return whether the batch was taken recently and its commit is finished, so that the lake certainly has it.

        If the result is False, the lake may still have the batch (see `unsure`).
        """
        return self.known.has_recent(key) and not self.pending.has(key)

    def unsure(self, batches: Sequence[SealedBatch]) -> list[BatchKey]:
        """Return the batches that may have been taken already, which only the lake can tell.

        The numbers of these batches were taken, but perhaps for other batches.
        """
        keys = dict.fromkeys(batch.key for batch in batches)
        return [
            key
            for key in keys
            if self.known.has_number(key) and not self.known.has_recent(key) and not self.pending.has(key)
        ]

    def take(
        self,
        batches: Sequence[SealedBatch],
        catalogues: Sequence[CatalogueContent] = (),
        *,
        in_lake: Collection[BatchKey] = (),
    ) -> Taken:
        """Store the new batches of `batches` as one commit, and store all `catalogues`.

        Both are stored in one durable transaction.  `in_lake` has the `unsure` batches that the lake has.
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
                if not self.known.has_number(batch.key):
                    new[batch.key] = batch
                elif self.pending.has(batch.key):
                    held.append(batch.key)
                elif batch.key in in_lake or self.known.has_recent(batch.key):
                    stored.append(batch.key)
                else:
                    new[batch.key] = batch
            forking = self.known.add(new) if new else []
            if new:
                number = self._add_commit(tuple(new.values()))
            self.catalogues.mark_used(
                {(batch.key.vehicle, batch.catalogue) for batch in batches if batch.catalogue is not None}
            )
            # Eviction comes last, so that it spares the catalogues that this commit uses.
            self.catalogues.evict({catalogue.vehicle for catalogue in catalogues})
        commit = Commit(number, tuple(new.values())) if new else None
        return Taken(commit, tuple(stored), tuple(held), tuple(forking))

    def finish(self, number: int, tables: Iterable[str] = ()) -> None:
        """Record that commit `number` is in the lake, and delete its sealed batches from the inbox.

        `tables` names the tables of the lake that have rows of the commit.
        """
        with self._database.transaction():
            self.record.set_landed(self.share, number, tables)
            self.record.set_whole(self.share, number)
            self.pending.finish(self.share, number)

    def give_up(self, key: BatchKey, tables: Iterable[str]) -> None:
        """Record that a batch of an unfinished commit was not taken after all.  It is taken when it comes again.

        `tables` names the tables of the lake that have the batch nevertheless.
        """
        with self._database.transaction():
            self.pending.drop([key])
            self.known.forget(key)
            for name in tables:
                self.record.add_half_landed(name, [key.digest])

    def undone(self) -> list[Commit]:
        """Return the unfinished commits of this share, in the order of their numbers."""
        return self.pending.commits(self.share)

    def adopt(self) -> "Generator[Inbox]":
        """Yield the inbox of every other share that has unfinished commits and no receiver.

        A share stays locked until the caller asks for the next share or closes the generator.
        """
        for share in self.pending.shares():
            if share == self.share:
                continue
            with adopting(self._database.path):
                try:
                    lock = try_lock_share(self._database.path, share)
                except Permanent:
                    # The share's own receiver is running, so it completes its commits itself.
                    continue
                try:
                    yield Inbox(self._database, share, lock)
                finally:
                    os.close(lock)

    def _add_commit(self, batches: Sequence[SealedBatch]) -> int:
        """Write `batches` to the table `pending` under the next number of this share, and return the number."""
        number = self.last_number + 1
        self._database.write("UPDATE shares SET last = ? WHERE share = ?", (number, self.share))
        self.pending.add(self.share, number, batches)
        return number

    def _current_app_id(self) -> str:
        (store,) = self._database.rows("SELECT store FROM shares WHERE share = ?", (self.share,))[0]
        return f"headunit-receiver/{store}/{self.share}"


def _prepare(database: Database) -> None:
    """Create the tables if the file is new.  Call this in a transaction.

    Raises: Permanent if the file has another format.
    """
    (version,) = database.rows("PRAGMA user_version")[0]
    if version == FORMAT:
        return
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
