"""Opens the receiver's SQLite file, runs transactions in it, and turns its failures into errors of this project.

Invariant: when a transaction has ended, its changes are on the disk (WAL with synchronous = FULL).  A power cut after
an acknowledgement therefore loses nothing.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from agent.errors import Permanent, Transient

# Receivers of other shares use the same file.  Each of their commits takes only milliseconds on a healthy disk.
_BUSY_S: Final = 30.0


class Database:
    """Holds one connection to the SQLite file at `path`.

    Every method raises Transient if the file cannot be read or written now, and Permanent if the file is damaged.  Only
    one thread may use a database at a time, but not necessarily the thread that opened it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file at `path`, or create it.  Only the owner of the file may read it."""
        with _failures_of(path):
            # With isolation_level=None, sqlite3 begins no transactions by itself.
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
        """Run a `with` block in a transaction: commit at its end, or roll back if the block raises."""
        with _failures_of(self.path):
            # IMMEDIATE takes the write lock at once.  Without IMMEDIATE, two receivers could both read and then both
            # try to write, and one of them would fail.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # After some errors, for example a full disk, SQLite has already rolled back by itself.
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
        """Execute a statement that changes the file.  Call this in a transaction."""
        with _failures_of(self.path):
            self._connection.execute(statement, parameters)

    def write_many(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        """Execute a statement once for each item of `parameters`.  Call this in a transaction."""
        with _failures_of(self.path):
            self._connection.executemany(statement, parameters)


@contextlib.contextmanager
def _failures_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # The disk is full, the file is locked, or the disk reports an I/O error.
        raise Transient(
            f"The receiver's database {path} cannot be used now ({error}). The receiver tries again; "
            "check the space and the health of the disk."
        ) from error
    except sqlite3.DatabaseError as error:
        raise Permanent(
            f"The receiver's database {path} is damaged ({error}). Stop the receiver and move the file away; "
            "the next start rebuilds it from the lake."
        ) from error
