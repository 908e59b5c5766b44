"""The receiver's SQLite file: how it is opened, how a transaction ends, and what its failures mean.

Invariant: what a transaction wrote is on the disk when it returns (WAL with synchronous = FULL), so a power cut after
an acknowledgement loses nothing.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from agent.errors import Permanent, Transient

# Receivers of other shares use the same file; a commit of theirs takes some milliseconds on a healthy disk.
_BUSY_S: Final = 30.0


class Database:
    """One connection to the file at `path`.

    Every method raises Transient where the disk refuses, and Permanent where the file is damaged.  One thread uses a
    database at a time, but it need not be the thread that opened it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at `path`, or create it, readable by its owner only."""
        with _failures_of(path):
            # isolation_level=None: transactions begin and end where the code says so, not where sqlite3 guesses.
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return cls(connection, path)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the body writes, or nothing where the body raises."""
        with _failures_of(self.path):
            # IMMEDIATE takes the write lock now: two receivers that both read first could not both go on to write.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk for example.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows that `query` finds."""
        with _failures_of(self.path):
            return self._connection.execute(query, parameters).fetchall()

    def row(self, query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Return the first row that `query` finds, or None."""
        with _failures_of(self.path):
            found: tuple[Any, ...] | None = self._connection.execute(query, parameters).fetchone()
            return found

    def write(self, statement: str, parameters: Sequence[object] = ()) -> None:
        """Execute a statement that changes the file; the caller holds a transaction."""
        with _failures_of(self.path):
            self._connection.execute(statement, parameters)

    def write_many(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        """Execute a statement once for each of `parameters`; the caller holds a transaction."""
        with _failures_of(self.path):
            self._connection.executemany(statement, parameters)


@contextlib.contextmanager
def _failures_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # The disk is full, the file is locked, or the disk reports an I/O error.
        raise Transient(f"{path}: {error}; the receiver continues when the disk allows it") from error
    except sqlite3.DatabaseError as error:
        raise Permanent(f"{path}: {error}; move it away, and the receiver rebuilds it from the lake") from error
