"""What the receiver has taken in: the memory that makes delivery exactly once.

A group of batches is *taken*: in one transaction (WAL, synchronous FULL) it gets a commit number N, its
batches are marked as known, and their bytes are kept, sealed as they came.  The caller then appends the
group to the lake under the transaction version N and *finishes* N, which drops the bytes.  Whatever moment
the process dies at, `undone` gives back every group that may be missing from the lake, under the number that
it had; the lake's own transaction versions tell which of its tables have it.  Numbers follow the order of
intake, never the order of `seq`: batches that arrive as 1, 3, 2 get rising numbers and all land.

    known       (vehicle, epoch, first, last)   ranges of seq that were taken; grows with gaps, not with
                                                batches
    pending     (share, number, position, ...)  groups that are not finished, with their sealed bytes
    shares      (share, last)                   the last commit number of each share of partitions
    catalogues  (vehicle, digest, content, used)  what batches refer to; at most CATALOGUES of a vehicle, of which those
                                                go first that were not used for longest, and none that pending needs

Catalogues lie beside what needs them, so both are here after a crash, or both are gone: then the vehicle still has the
batches, and is asked for the catalogue.

Receivers of different shares may use one file; each share has its own numbers, and a lock lets one process
serve it.  A receiver that starts adopts, one after the other, the unfinished commits of shares that nobody
serves, so other partitions on the command line after a crash strand nothing.
"""

import contextlib
import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.errors import Permanent, Transient
from fleet.lake.batch_key import BatchKey

FORMAT = 1  # PRAGMA user_version
CATALOGUES = 64  # of one vehicle: it keeps half as many itself
_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE identity (store TEXT NOT NULL) STRICT;
CREATE TABLE shares (share TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE known (
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (vehicle, epoch, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE pending (
    share TEXT NOT NULL, number INTEGER NOT NULL, position INTEGER NOT NULL,
    vehicle TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    received_at_us INTEGER NOT NULL, sealed BLOB NOT NULL, catalogue BLOB,
    PRIMARY KEY (share, number, position)
) STRICT;
CREATE UNIQUE INDEX pending_batch ON pending (vehicle, epoch, seq);
CREATE TABLE catalogues (
    vehicle TEXT NOT NULL, digest BLOB NOT NULL, content BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (vehicle, digest)
) STRICT;
CREATE INDEX catalogues_by_use ON catalogues (vehicle, used);
"""


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
class CatalogueContent:
    """A catalogue of one vehicle under its digest; `content` as fleet.receiving.catalogues packs it."""

    vehicle: str
    digest: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """A group of batches that lands in the lake together, under transaction version `number`."""

    number: int
    batches: tuple[SealedBatch, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a group: `commit` holds what was new.

    `stored` are in the lake already.  `held` were taken before but are not finished: only the receiver that
    took them may say that they are stored.
    """

    commit: Commit | None
    stored: tuple[BatchKey, ...]
    held: tuple[BatchKey, ...]


class Inbox:
    """The database, for one share of the partitions.  One thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path, share: str, lock: int, store: str) -> None:
        self._connection = connection
        self._path = path
        self._share = share
        self._lock = lock
        self._store = store
        self.app_id = f"headunit-receiver/{store}/{share}"

    @classmethod
    def open(cls, path: Path, *, share: str, known: Callable[[], Iterable[BatchKey]]) -> Self:
        """Open the database at `path`.  Where there is none, create it, knowing the batches `known()` from
        the start.

        Permanent where another receiver serves this share or the file is not ours; Transient where the disk
        refuses.
        """
        lock_path = path.with_name(f"{path.stem}-{share}.lock")
        try:
            lock = _take_lock(lock_path, share)
        except Permanent:  # or another receiver adopts its commits just now: that ends
            with _adopting(path):
                lock = _take_lock(lock_path, share)
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            with _transaction(connection, path):
                store = _open_store(connection, path, known)
        except sqlite3.DatabaseError as error:
            os.close(lock)
            raise _failure(path, error) from error
        except BaseException:
            os.close(lock)
            raise
        return cls(connection, path, share, lock, store)

    def close(self) -> None:
        """Close the database and give up the share."""
        self._connection.close()
        os.close(self._lock)

    @property
    def last_number(self) -> int:
        """The highest commit number ever given to this share; 0 before the first."""
        with _naming(self._path):
            row = self._connection.execute("SELECT last FROM shares WHERE share = ?", (self._share,)).fetchone()
        return 0 if row is None else int(row[0])

    def has_catalogue(self, vehicle: str, digest: bytes) -> bool:
        """Whether a catalogue is kept."""
        with _naming(self._path):
            query = "SELECT 1 FROM catalogues WHERE vehicle = ? AND digest = ?"
            return self._connection.execute(query, (vehicle, digest)).fetchone() is not None

    def catalogue(self, vehicle: str, digest: bytes) -> bytes | None:
        """The content of a catalogue that is kept."""
        with _naming(self._path):
            row = self._connection.execute(
                "SELECT content FROM catalogues WHERE vehicle = ? AND digest = ?", (vehicle, digest)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def is_stored(self, key: BatchKey) -> bool:
        """Whether the batch was taken and finished: the lake has it."""
        with _naming(self._path):
            return _is_known(self._connection, key) and not self._is_pending(key)

    def take(self, batches: Sequence[SealedBatch], catalogues: Sequence[CatalogueContent] = ()) -> Taken:
        """Keep what is new of `batches`, durably, as one commit, and `catalogues`, whatever is new of them.

        Transient where the disk refuses: nothing is kept.
        """
        new: dict[BatchKey, SealedBatch] = {}
        stored: list[BatchKey] = []
        held: list[BatchKey] = []
        number = 0
        with _transaction(self._connection, self._path):
            self._keep_catalogues(catalogues)
            for batch in batches:
                if batch.key in new:
                    continue
                if _is_known(self._connection, batch.key):
                    (held if self._is_pending(batch.key) else stored).append(batch.key)
                else:
                    _mark_known(self._connection, batch.key)
                    new[batch.key] = batch
            if new:
                number = self._give_number()
                self._connection.executemany(
                    "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            self._share,
                            number,
                            position,
                            *_columns(batch.key),
                            batch.received_at_us,
                            batch.sealed,
                            batch.catalogue,
                        )
                        for position, batch in enumerate(new.values())
                    ],
                )
            self._mark_used({(batch.key.vehicle, batch.catalogue) for batch in batches if batch.catalogue is not None})
            self._drop_catalogues({catalogue.vehicle for catalogue in catalogues})
        commit = Commit(number, tuple(new.values())) if new else None
        return Taken(commit, tuple(stored), tuple(held))

    def finish(self, number: int) -> None:
        """Commit `number` is in the lake: drop its bytes.  Transient where the disk refuses."""
        with _transaction(self._connection, self._path):
            self._connection.execute("DELETE FROM pending WHERE share = ? AND number = ?", (self._share, number))

    def undone(self) -> list[Commit]:
        """Commits of this share that were taken and not finished, in the order of their numbers."""
        with _naming(self._path):
            rows = self._connection.execute(
                "SELECT number, vehicle, epoch, seq, received_at_us, sealed, catalogue FROM pending"
                " WHERE share = ? ORDER BY number, position",
                (self._share,),
            ).fetchall()
        groups: dict[int, list[SealedBatch]] = {}
        for number, vehicle, epoch, seq, received_at_us, sealed, catalogue in rows:
            batch = SealedBatch(BatchKey(vehicle, epoch, seq), sealed, received_at_us, catalogue)
            groups.setdefault(number, []).append(batch)
        return [Commit(number, tuple(batches)) for number, batches in groups.items()]

    def adopt(self) -> "Generator[Inbox]":
        """Each other share that has unfinished commits and no receiver, held while the caller lands them."""
        with _naming(self._path):
            query = "SELECT DISTINCT share FROM pending WHERE share <> ? ORDER BY share"
            shares = [str(row[0]) for row in self._connection.execute(query, (self._share,))]
        for share in shares:
            with _adopting(self._path):
                try:
                    lock = _take_lock(self._path.with_name(f"{self._path.stem}-{share}.lock"), share)
                except Permanent:  # its own receiver runs, and lands them itself
                    continue
                try:
                    yield Inbox(self._connection, self._path, share, lock, self._store)
                finally:
                    os.close(lock)

    def _keep_catalogues(self, catalogues: Sequence[CatalogueContent]) -> None:
        self._connection.executemany(
            "INSERT INTO catalogues SELECT ?1, ?2, ?3, coalesce(max(used), 0) + 1 FROM catalogues WHERE vehicle = ?1"
            " ON CONFLICT (vehicle, digest) DO UPDATE SET content = excluded.content, used = excluded.used",
            [(catalogue.vehicle, catalogue.digest, catalogue.content) for catalogue in catalogues],
        )

    def _mark_used(self, used: Iterable[tuple[str, bytes]]) -> None:
        self._connection.executemany(
            "UPDATE catalogues SET used = (SELECT max(used) + 1 FROM catalogues WHERE vehicle = ?1)"
            " WHERE vehicle = ?1 AND digest = ?2",
            sorted(used),
        )

    def _drop_catalogues(self, vehicles: Iterable[str]) -> None:
        self._connection.executemany(
            "DELETE FROM catalogues WHERE vehicle = ?1 AND digest IN"
            " (SELECT digest FROM catalogues WHERE vehicle = ?1 ORDER BY used DESC LIMIT -1 OFFSET ?2)"
            " AND digest NOT IN (SELECT catalogue FROM pending WHERE vehicle = ?1 AND catalogue IS NOT NULL)",
            [(vehicle, CATALOGUES) for vehicle in sorted(vehicles)],
        )

    def _give_number(self) -> int:
        number = self.last_number + 1
        self._connection.execute(
            "INSERT INTO shares VALUES (?1, ?2) ON CONFLICT (share) DO UPDATE SET last = ?2",
            (self._share, number),
        )
        return number

    def _is_pending(self, key: BatchKey) -> bool:
        query = "SELECT 1 FROM pending WHERE vehicle = ? AND epoch = ? AND seq = ?"
        return self._connection.execute(query, _columns(key)).fetchone() is not None


def _is_known(connection: sqlite3.Connection, key: BatchKey) -> bool:
    row = connection.execute(
        "SELECT last FROM known WHERE vehicle = ? AND epoch = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        _columns(key),
    ).fetchone()
    return row is not None and int(row[0]) >= key.seq


def _mark_known(connection: sqlite3.Connection, key: BatchKey) -> None:
    """Add `key` to the ranges of its vehicle and epoch, unless it is in one already."""
    of = (key.vehicle, key.epoch)
    before = connection.execute(
        "SELECT first, last FROM known WHERE vehicle = ? AND epoch = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        (*of, key.seq),
    ).fetchone()
    if before is not None and before[1] >= key.seq:
        return
    after = connection.execute(
        "SELECT last FROM known WHERE vehicle = ? AND epoch = ? AND first = ?", (*of, key.seq + 1)
    ).fetchone()
    first, last = key.seq, key.seq
    if after is not None:
        last = after[0]
        connection.execute("DELETE FROM known WHERE vehicle = ? AND epoch = ? AND first = ?", (*of, key.seq + 1))
    if before is not None and before[1] == key.seq - 1:
        first = before[0]
    connection.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?)", (*of, first, last))


def _columns(key: BatchKey) -> tuple[str, str, int]:
    return key.vehicle, key.epoch, key.seq


def _open_store(connection: sqlite3.Connection, path: Path, known: Callable[[], Iterable[BatchKey]]) -> str:
    """Return the name of the store; make the tables and the name first where the database is new.

    Raises Permanent where the database has another format.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == FORMAT:
        return str(connection.execute("SELECT store FROM identity").fetchone()[0])
    if version != 0:  # SQLite gives a new database the version 0
        raise Permanent(
            f"{path} has format {version}, and this receiver reads format {FORMAT}: use the release that wrote it, "
            "or move it away, and the receiver rebuilds it from the lake"
        )
    for statement in _SCHEMA.split(";"):  # executescript would commit between the statements
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    store = uuid.uuid4().hex
    connection.execute("INSERT INTO identity VALUES (?)", (store,))
    for key in sorted(known()):
        _mark_known(connection, key)
    return store


def _take_lock(path: Path, share: str) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Permanent(
            f"another receiver serves partitions {share} ({path} is locked); end it, or give each its --partitions"
        ) from error
    return lock


@contextlib.contextmanager
def _adopting(path: Path) -> Iterator[None]:
    """One process at a time adopts; who finds its share taken waits here to see whether it was by an adopter."""
    lock = os.open(path.with_name(f"{path.stem}-adopting.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _failure(path, error) from error


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    with _naming(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _failure(path: Path, error: sqlite3.DatabaseError) -> Permanent | Transient:
    if isinstance(error, sqlite3.OperationalError):  # disk full, locked, I/O error
        return Transient(f"{path}: {error}; the receiver goes on when the disk allows")
    return Permanent(f"{path}: {error}; move it away, and the receiver rebuilds it from the lake")
