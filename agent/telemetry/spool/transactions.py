"""Runs transactions on the spool's index, and copes with failures of the disk, the power and the index itself.

Invariant: readers see only what the disk holds.  If an error occurs before COMMIT, the transaction is rolled back.
After any error in a transaction, the next call opens the index again.

If COMMIT itself reports an error, the transaction may have reached the disk all the same.  An append therefore stores a
token that its caller chose.  When the index is opened again, the token shows whether the append happened.  `stored`
returns the answer.  The files of an append that did not happen are removed.  A transaction that removes batches needs
no token: when the index is opened again, the rows show which of these batches are gone, and their files are unlinked.

Recovery runs when the spool is opened.  An index that SQLite cannot read, or that has another version, is moved to
quarantine/.  A new index with a new epoch replaces it, and the loss `index_damaged` goes to the ledger for each earlier
epoch.  Then agent.telemetry.spool.recovery makes the index and the files agree.  Recovery runs again if the index
shows damage later.  A damaged index or file never makes opening fail.  Opening fails only if the folder cannot be used
or if another process uses the spool.
"""

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from agent.errors import Permanent, Transient
from agent.formats.up.columns import Clock
from agent.telemetry.spool.batch import BatchId, Entry
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import HandedOut
from agent.telemetry.spool.lock import FolderLock
from agent.telemetry.spool.memory import Memory
from agent.telemetry.spool.recovery import reconcile
from agent.telemetry.spool.schema import Connect
from agent.telemetry.spool.stopgap import Stopgap, record

_DAMAGE: Final = {  # SQLite's primary result codes for wrong pages, missing tables and impossible rows
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}


class NotStored(Transient):
    """Raised if an append failed before its transaction began, so that it certainly did not happen."""


class _Unresolved(msgspec.Struct, frozen=True):
    """Describes an append that has not finished, or that failed but may still have been committed.

    `paths` are the files of the append, and `held` has the ids of its batches that memory holds.  `closes` has the ids
    of the windows that the append closes.
    """

    token: str
    paths: tuple[Path, ...]
    held: frozenset[BatchId]
    closes: frozenset[str]


class Transactions:
    """Holds the open index, and the lock that keeps other processes away.

    Methods block, and any thread may call them.  While a thread holds `turn`, calls of other threads wait.
    """

    def __init__(
        self,
        folder: SpoolFolder,
        memory: Memory,
        stopgap: Stopgap,
        *,
        clock: Callable[[], Clock],
        open_database: Connect,
    ) -> None:
        self._folder = folder
        self.memory = memory
        self.stopgap = stopgap
        self._left_behind = stopgap.left_behind()
        self._clock = clock
        self._open_database = open_database
        self.turn = threading.RLock()
        self._index: Index | None = None
        self._lock = FolderLock(folder.root)
        self._handed_out = HandedOut()
        self._unresolved: _Unresolved | None = None
        self._landed = ""  # the token of the last append that raised an error but was committed
        self.open_windows: set[str] = set()
        """Ids of this process's windows that have checkpoints: open ones, and closed ones that wait for the disk."""
        self.removing: list[Entry] = []
        """Batches whose rows a transaction removes or may have removed.  Their files must be unlinked afterwards."""

    # ---- opening

    def recover(self) -> None:
        """Open the index, and make the index and the files agree.  Raises Transient or Permanent.

        If the index is missing or damaged, a new index replaces it.
        """
        with self.turn:
            try:
                self._folder.prepare()
                self._lock.take()
                self._folder.sweeper.sweep()  # otherwise a new index would adopt acknowledged batches
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
        # This comes first, because a new index would adopt the files of an append that the caller will repeat.
        self._resolve(self._index)
        self._record_left_behind(self._index)
        reconcile(self._index, self._folder, self._clock(), self.open_windows, self.memory)

    def _record_left_behind(self, index: Index) -> None:
        """Record what an earlier process sent without the disk, before its checkpoints become batches."""
        note = self._left_behind
        if note is not None and index.last_append != note.token:
            index.begin()
            record(index, note)  # `reconcile` removes the files of the checkpoints
            index.commit()
        if note is not None:
            self._left_behind = None
            self.stopgap.discard_note()

    def close(self) -> None:
        """Close the index, so that another process can use the spool."""
        with self.turn:
            self._drop_index()
            self._lock.release()

    # ---- using

    @contextlib.contextmanager
    def reading(self) -> Iterator[Index]:
        """Yield the index for statements that change nothing.

        Raises Transient if the disk refuses or the index was damaged.
        """
        with self.turn:
            try:
                yield self._ready()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Index]:
        """Yield the index in a transaction, which is committed at the end, or rolled back if anything raises.

        Raises Transient if the disk refuses or the index was damaged.
        """
        with self.turn:
            try:
                index = self._ready()
                index.begin()
                yield index
                index.commit()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)
            except BaseException:
                self._drop_index()  # closing rolls back, and reopening reads all cached values from the disk again
                raise

    @contextlib.contextmanager
    def storing(
        self,
        token: str,
        contents: Mapping[Path, bytes],
        *,
        closes: frozenset[str],
        dropped: list[Entry],
        held: Collection[BatchId] = (),
    ) -> Iterator[Index]:
        """Make the files `contents` durable, then commit a transaction.  Both happen, or neither does.

        The caller adds its statements to the transaction through the index that is yielded, and the batches `held` to
        memory, which drops them if the transaction is not committed.  After the commit, the windows `closes` count as
        closed, and the files of the checkpoints `dropped` are removed.  If this raises Transient, the transaction may
        have been committed all the same.  Call `stored` to find out.
        """
        with self.turn:
            self._ready()  # resolves any earlier append
            try:
                self._folder.write_all(contents)
            except OSError as error:
                raise NotStored(str(self._folder.refuses(error))) from error
            try:
                with self.writing() as index:
                    self._unresolved = _Unresolved(token, tuple(contents), frozenset(held), closes)
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
        """Return whether the last append has this token and was committed, even if it raised.  Raises Transient."""
        with self.reading() as index:
            return token in (index.last_append, self._landed)

    def tried(self, token: str) -> bool:
        """Return whether an append with this token may have been committed, as far as this process knows."""
        return self._landed == token or (self._unresolved is not None and self._unresolved.token == token)

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
            f"The index of the spool {self._folder.root} was damaged ({error}) and has been rebuilt. Try again."
        ) from error

    def _ready(self) -> Index:
        """Return the open index.

        If an error has closed the index, open the index again, and find out whether the failed append happened.
        """
        if self._index is None:
            self._index = self._open_index()
            if not self._index.recovered():
                raise sqlite3.DatabaseError("the index file is missing")
        self._resolve(self._index)
        if self.removing:
            self.unlink([entry for entry in self.removing if not _has_bytes(self._index.rows.find(*entry.key))])
        return self._index

    def _open_index(self) -> Index:
        if not self._lock.is_held:
            raise Permanent(f"The spool {self._folder.root} is closed. Open the spool again.")
        epoch = secrets.token_hex(16)
        return Index.open(self._folder.index, self._open_database, new_epoch=epoch, handed_out=self._handed_out)

    def _resolve(self, index: Index) -> None:
        """Find out whether the failed append was committed.  If it was not, remove the files of the append."""
        if self._unresolved is None:
            return
        if index.last_append == self._unresolved.token:
            self._landed = self._unresolved.token
            self.open_windows -= self._unresolved.closes
        else:
            self._folder.remove(self._unresolved.paths)
            for key in self._unresolved.held:
                self.memory.drop(key)
        self._unresolved = None

    def _drop_index(self) -> None:
        if self._index is not None:
            index, self._index = self._index, None
            with contextlib.suppress(sqlite3.Error):  # the index may be closed because of an error already
                index.close()


def _has_bytes(entry: Entry | None) -> bool:
    return entry is not None and entry.withdrawn is None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether `error` means damaged content, and not a failure of the disk (full, read-only, I/O error)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE
