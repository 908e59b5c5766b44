"""Transactions on the spool's index, where the disk, the power or the index itself may fail.  Touches the world.

Invariant: what is read is what the disk holds.  A transaction that raises is rolled back, and the index opened anew at
the next call.  One that reports an error may have reached the disk all the same; an append is then taken back
(`Doubt`), so that it can be repeated: none of its batches can have been sent.  A removal stands where it did.

Recovery, when the spool is opened: an index that SQLite cannot read, or of another version, is moved to quarantine/ and
a new one (new epoch) made; `index_damaged` goes to the ledger for each earlier epoch.  The rest stands in
agent.telemetry.spool_recovery.  The same is done where an index shows damage later.  Opening never fails for what it
finds damaged; only for a folder that cannot be used, or used by another process.
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent.errors import Permanent, Transient
from agent.telemetry.losses import Loss
from agent.telemetry.spool_batch import Entry
from agent.telemetry.spool_catalogues import Carrier
from agent.telemetry.spool_files import SpoolFolder
from agent.telemetry.spool_index import Index
from agent.telemetry.spool_ledger import Total
from agent.telemetry.spool_recovery import path_of, reconcile
from agent.telemetry.spool_schema import Connect

_DAMAGE: Final = {  # SQLite's primary result codes: wrong pages, missing tables, impossible rows
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}


@dataclass(frozen=True, slots=True)
class Doubt:
    """An append that is under way, or failed: it may have committed all the same.  What was before it."""

    seqs: range
    paths: tuple[Path, ...]
    positions: Mapping[str, int]
    reached: Mapping[str, int]
    ledger: tuple[Sequence[tuple[int, Loss]], Mapping[str, Total]] | None  # where the append touched it
    carriers: tuple[Carrier, ...]
    replaced: tuple[Entry, ...]

    @classmethod
    def of(
        cls, index: Index, seqs: range, paths: Iterable[Path], replaced: Sequence[Entry], *, losses: bool
    ) -> "Doubt":
        """An append of `seqs` that writes `paths`; `losses`: it touches the ledger other than by reporting."""
        return cls(
            seqs,
            tuple(paths),
            index.positions(),
            index.reached(),
            (index.ledger.unreported_losses(-1), index.ledger.totals()) if losses else None,
            tuple(index.catalogues.all().values()),
            tuple(replaced),
        )


class Transactions:
    """See the module's text.  Methods block; any thread may call them, who holds `turn` keeps all others waiting."""

    def __init__(self, folder: SpoolFolder, *, now_s: Callable[[], float], open_database: Connect) -> None:
        self._folder = folder
        self._now_s = now_s
        self._open_database = open_database
        self.turn = threading.RLock()
        self._index: Index | None = None
        self._lock_fd = -1
        self._doubt: Doubt | None = None
        self.told = 0
        """See Ledger.told."""
        self.removing: list[Entry] = []
        """Whose rows a transaction removes that is under way, or reported an error: `unlink` is to follow."""

    def recover(self) -> None:
        """See the module's text."""
        with self.turn:
            try:
                self._folder.prepare()
                self._take_lock()
                self._folder.sweep()  # or a new index would take in what was acknowledged
                self.removing = []
                try:
                    self._index = self._open_index()
                    self._settle(self._index)
                    reconcile(self._index, self._folder, self._now_s())
                except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
                    if isinstance(error, sqlite3.DatabaseError) and not _is_damage(error):
                        raise
                    self._drop_index()
                    self._folder.set_index_aside()
                    self._index = self._open_index()
                    self._settle(self._index)  # else its files would be taken in, and their batches be stored twice
                    reconcile(self._index, self._folder, self._now_s())
            except (OSError, sqlite3.Error) as error:
                self._drop_index()
                raise self._folder.refuses(error) from error

    def _take_lock(self) -> None:
        if self._lock_fd >= 0:
            return
        self._lock_fd = os.open(self._folder.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Permanent(f"spool {self._folder.root} is in use by another process: stop that one") from error

    def close(self) -> None:
        """Close the index and let another process have the spool."""
        with self.turn:
            self._drop_index()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    @contextlib.contextmanager
    def reading(self) -> Iterator[Index]:
        """The index, for statements that change nothing."""
        with self.turn:
            try:
                yield self._ready()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)

    @contextlib.contextmanager
    def writing(self, *, settle: bool = True) -> Iterator[Index]:
        """A transaction: committed at the end, rolled back where anything raises."""
        with self.turn:
            try:
                index = self._ready(settle=settle)
                index.begin()
                yield index
                index.commit()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)
            except BaseException:
                self._drop_index()  # closing rolls back; what is opened anew is what the disk holds
                raise

    @contextlib.contextmanager
    def storing(self, contents: Mapping[Path, bytes], doubt: Doubt) -> Iterator[Index]:
        """Make files durable, then commit the transaction that makes them count: all of it happens, or nothing."""
        self._doubt = doubt
        try:
            self._folder.write_all(contents)
        except OSError as error:
            raise self._folder.refuses(error) from error
        with self.writing(settle=False) as index:
            yield index
        self._doubt = None

    def _give_up_index(self, error: sqlite3.DatabaseError) -> NoReturn:
        self._drop_index()
        if not _is_damage(error):
            raise self._folder.refuses(error) from error
        self.recover()
        raise Transient(f"spool {self._folder.root}: the index was damaged and is made anew: {error}") from error

    def _ready(self, *, settle: bool = True) -> Index:
        """The open index, opened anew after an error, with a doubtful append taken back (`settle`)."""
        if self._index is None:
            self._index = self._open_index()
            if not self._index.recovered():
                raise sqlite3.DatabaseError("the index file is gone")
        if settle:
            self._settle(self._index)
        if self.removing:
            self.unlink([entry for entry in self.removing if not _has_bytes(self._index.find(*entry.key))])
        return self._index

    def _open_index(self) -> Index:
        if self._lock_fd < 0:
            raise Permanent(f"spool {self._folder.root} is closed")
        return Index.open(self._folder.index, self._open_database, new_epoch=secrets.token_hex(16), told=self.told)

    def _settle(self, index: Index) -> None:
        """Take back an append that was reported as failed; who wanted it repeats it."""
        if self._doubt is not None:
            try:
                self._undo(index, self._doubt)
            except BaseException:
                self._drop_index()
                raise
            self._doubt = None

    def _undo(self, index: Index, doubt: Doubt) -> None:
        """None of its batches can have been sent."""
        if index.next_seq == doubt.seqs.stop:  # it landed
            index.begin()
            for seq in doubt.seqs:
                if (entry := index.find(index.epoch, seq)) is not None:
                    index.ledger.unreport(entry.position)
                    index.remove(entry.position)
            if doubt.ledger is not None:
                index.ledger.restore(*doubt.ledger)
            for entry in doubt.replaced:
                index.add(entry, self._now_s())
            index.replace_positions(doubt.positions)
            index.replace_reached(doubt.reached)
            index.catalogues.replace_all(doubt.carriers)
            index.set_next_seq(doubt.seqs.start)
            index.commit()
        self._folder.remove(doubt.paths)

    def _drop_index(self) -> None:
        if self._index is not None:
            index, self._index = self._index, None
            with contextlib.suppress(sqlite3.Error):  # given up because of an error: this one adds nothing
                index.close()

    def unlink(self, entries: Iterable[Entry]) -> None:
        """Remove the files of batches that the index knows no more."""
        self._folder.remove([path_of(self._folder, entry) for entry in entries])
        self.removing = []


def _has_bytes(entry: Entry | None) -> bool:
    return entry is not None and entry.withdrawn is None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the database's content is at fault, not the disk below it (full, read-only, I/O error)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE
