"""Transactions on the spool's index, where the disk, the power or the index itself may fail.  Touches the world.

Invariant: what is read is what the disk holds.  A transaction that raises is rolled back, and the index is opened anew
at the next call.

A transaction that reports an error during COMMIT may have reached the disk all the same.  An append therefore stores a
token that its caller chose.  The index that is opened next says by the token whether the append happened, and `stored`
tells the caller.  The files of an append that did not happen are removed.  A removal stands where it happened.

Recovery, when the spool is opened: an index that SQLite cannot read, or of another version, is moved to quarantine/ and
a new one (with a new epoch) is made; `index_damaged` goes to the ledger for each earlier epoch.
agent.telemetry.spool.recovery does the rest.  The same is done where an index shows damage later.  Opening never fails
for what it finds damaged, only for a folder that cannot be used or that another process uses.
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from agent.errors import Permanent, Transient
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import HandedOut
from agent.telemetry.spool.recovery import reconcile
from agent.telemetry.spool.schema import Connect

_DAMAGE: Final = {  # SQLite's primary result codes: wrong pages, missing tables, impossible rows
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}


@dataclass(frozen=True, slots=True)
class _Unresolved:
    """An append that is under way, or that failed and may have been committed all the same."""

    token: str
    paths: tuple[Path, ...]
    closes: frozenset[str]


class Transactions:
    """The index and its lock.  Methods block.  Any thread may call them; one that holds `turn` keeps others waiting."""

    def __init__(self, folder: SpoolFolder, *, now_s: Callable[[], float], open_database: Connect) -> None:
        self._folder = folder
        self._now_s = now_s
        self._open_database = open_database
        self.turn = threading.RLock()
        self._index: Index | None = None
        self._lock_fd = -1
        self._handed_out = HandedOut()
        self._unresolved: _Unresolved | None = None
        self._landed = ""  # the token of the last append that failed and yet was committed
        self.open_windows: set[str] = set()
        """Windows of this process that have checkpoints; at most one a campaign, and those that wait for the disk."""
        self.removing: list[Entry] = []
        """Batches whose rows a transaction removes that is under way or reported an error; `unlink` is to follow."""

    # ---- opening

    def recover(self) -> None:
        """Open the index, or make a new one, and make it agree with the files.  Raises Transient, Permanent."""
        with self.turn:
            try:
                self._folder.prepare()
                self._take_lock()
                self._folder.sweeper.sweep()  # a new index would take in the files of acknowledged batches
                self.removing = []
                try:
                    self._open_and_reconcile()
                except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
                    if isinstance(error, sqlite3.DatabaseError) and not _is_damage(error):
                        raise
                    self._drop_index()
                    self._folder.set_index_aside()
                    self._open_and_reconcile()
            except (OSError, sqlite3.Error) as error:
                self._drop_index()
                raise self._folder.refuses(error) from error

    def _open_and_reconcile(self) -> None:
        self._index = self._open_index()
        # First: a new index would take in the files of an append that the caller repeats.
        self._resolve(self._index)
        reconcile(self._index, self._folder, self._now_s(), self.open_windows)

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

    # ---- using

    @contextlib.contextmanager
    def reading(self) -> Iterator[Index]:
        """Give the index, for statements that change nothing."""
        with self.turn:
            try:
                yield self._ready()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Index]:
        """Give the index in a transaction, which is committed at the end and rolled back where anything raises."""
        with self.turn:
            try:
                index = self._ready()
                index.begin()
                yield index
                index.commit()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)
            except BaseException:
                self._drop_index()  # closing rolls back, and the index that is opened next reads what the disk holds
                raise

    @contextlib.contextmanager
    def storing(
        self, token: str, contents: Mapping[Path, bytes], *, closes: frozenset[str], dropped: list[Entry]
    ) -> Iterator[Index]:
        """Make files durable, then commit the transaction that makes them count: all of it happens, or nothing.

        The transaction closes windows (by id), and drops the checkpoints `dropped`, whose files are removed after.
        """
        with self.turn:
            self._ready()  # any earlier append is resolved
            try:
                self._folder.write_all(contents)
            except OSError as error:
                raise self._folder.refuses(error) from error
            try:
                with self.writing() as index:
                    self._unresolved = _Unresolved(token, tuple(contents), closes)
                    self.removing = dropped
                    index.set_last_append(token)
                    yield index
            except Transient:
                if self._unresolved is None:  # the transaction did not begin, or recovery has resolved the append
                    self._folder.remove(contents.keys() if self._landed != token else ())
                raise
            self._unresolved = None
            self.open_windows -= closes
            self.unlink(dropped)

    def stored(self, token: str) -> bool:
        """Return whether an append that failed was nevertheless committed.  Raises Transient."""
        with self.reading() as index:
            return token in (index.last_append, self._landed)

    def unlink(self, entries: Iterable[Entry]) -> None:
        """Remove the files of batches whose rows are gone."""
        self._folder.remove([self._folder.path(entry.name) for entry in entries])
        self.removing = []

    # ---- the index after an error

    def _give_up_index(self, error: sqlite3.DatabaseError) -> NoReturn:
        self._drop_index()
        if not _is_damage(error):
            raise self._folder.refuses(error) from error
        self.recover()
        raise Transient(
            f"spool {self._folder.root}: the index was damaged and has been made anew ({error}); try again"
        ) from error

    def _ready(self) -> Index:
        """Return the open index, opened anew after an error, with an earlier append resolved."""
        if self._index is None:
            self._index = self._open_index()
            if not self._index.recovered():
                raise sqlite3.DatabaseError("the index file is gone")
        self._resolve(self._index)
        if self.removing:
            self.unlink([entry for entry in self.removing if not _has_bytes(self._index.rows.find(*entry.key))])
        return self._index

    def _open_index(self) -> Index:
        if self._lock_fd < 0:
            raise Permanent(f"spool {self._folder.root} is closed")
        epoch = secrets.token_hex(16)
        return Index.open(self._folder.index, self._open_database, new_epoch=epoch, handed_out=self._handed_out)

    def _resolve(self, index: Index) -> None:
        """Find out whether the append that failed was committed."""
        if self._unresolved is None:
            return
        if index.last_append == self._unresolved.token:
            self._landed = self._unresolved.token
            self.open_windows -= self._unresolved.closes
        else:
            self._folder.remove(self._unresolved.paths)
        self._unresolved = None

    def _drop_index(self) -> None:
        if self._index is not None:
            index, self._index = self._index, None
            with contextlib.suppress(sqlite3.Error):  # it is given up because of an error: this one adds nothing
                index.close()


def _has_bytes(entry: Entry | None) -> bool:
    return entry is not None and entry.withdrawn is None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Say whether the database's content is at fault, not the disk below it (full, read-only, I/O error)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE
