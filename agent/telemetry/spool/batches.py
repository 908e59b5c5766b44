"""Reads and writes the table of batches, and lists batches in the orders of sending and of eviction.

Invariant: each statement uses an SQL index, so its cost does not grow with the number of stored batches.  The
exceptions are `Rows.all`, `Rows.without_file` and `Usage.recount`, as their docstrings say.

Methods raise sqlite3.Error.  Methods that write must be called within a transaction.
"""
# ruff: noqa: S608  # statements are composed of constants; values are always bound

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.spool.batch import UNKNOWN, BatchId, Entry
from agent.telemetry.spool.boots import Moment
from agent.telemetry.spool.schema import LISTED, WAITS, lane_of, listed, reason_of

_ENTRY_COLUMNS: Final = (
    "id, epoch, seq, lane, priority, campaign, size, digest, samples, first_t_us, last_t_us, refers,"
    " window, fragment, fragments, withdrawn"
)
_NTH_NEWEST: Final = "SELECT coalesce((SELECT id FROM batches ORDER BY id DESC LIMIT 1 OFFSET ?), 0)"

Keys = Collection[BatchId] | Collection[tuple[str, int]]


class Rows:
    """Adds, removes and finds batches by id and by row."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add(self, entry: Entry, now: Moment) -> int:
        """Add a row for `entry`, stored `now`, and return the number of the row; `entry.row` is ignored."""
        cursor = self._db.execute(
            "INSERT INTO batches (epoch, seq, lane, priority, campaign, size, digest, boot, stored_at_us,"
            " stored_wall_us, samples, first_t_us, last_t_us, refers, window, fragment, fragments, withdrawn)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.epoch,
                entry.seq,
                WAITS if entry.waits else entry.lane.value,
                entry.priority,
                entry.campaign,
                entry.size_bytes,
                entry.digest,
                *now,
                entry.samples,
                entry.first_t_us,
                entry.last_t_us,
                entry.refers,
                entry.window,
                entry.fragment,
                entry.fragments,
                entry.withdrawn,
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def keep(self, row: int, size_bytes: int) -> None:
        """Record that the bytes of a batch, which only memory had, are on the disk now."""
        self._db.execute("UPDATE batches SET size = ?, withdrawn = NULL WHERE id = ?", (size_bytes, row))

    def remove(self, *rows: int) -> None:
        """Remove the rows with these numbers."""
        self._db.execute(f"DELETE FROM batches WHERE id IN {LISTED}", (listed(rows),))

    def find(self, epoch: str, seq: int) -> Entry | None:
        """Return the batch with this id, or None if it is not stored."""
        return next(entries(self._db, "WHERE epoch = ? AND seq = ?", (epoch, seq)), None)

    def at(self, row: int) -> Entry | None:
        """Return the batch in row `row`, or None if there is no such row."""
        return next(entries(self._db, "WHERE id = ?", (row,)), None)

    def sendable(self, epoch: str, seqs: Iterable[int]) -> list[Entry]:
        """Return the stored batches with these ids, except checkpoints of windows that are not stored yet."""
        where = f"WHERE epoch = ? AND seq IN {LISTED} AND lane <> {WAITS}"
        return list(entries(self._db, where, (epoch, listed(seqs))))

    def all(self) -> Iterator[Entry]:
        """Return every batch in order of arrival.

        Only recovery and `ledger_on_disk` use this method, because its cost grows with the number of batches.
        """
        return entries(self._db, "ORDER BY id", ())

    def without_file(self) -> list[Entry]:
        """Return the batches whose bytes are only in memory.  Only recovery asks, because the cost grows as in
        `all`."""
        return list(entries(self._db, f"WHERE withdrawn IS NOT NULL AND lane <> {WAITS} ORDER BY id", ()))

    def is_referred_to(self, digest: bytes) -> bool:
        """Return whether any stored batch needs the catalogue `digest`."""
        exists = "SELECT EXISTS (SELECT 1 FROM batches WHERE refers = ?)"
        return bool(self._db.execute(exists, (digest,)).fetchone()[0])

    def has_unknown_references(self) -> bool:
        """Return whether the catalogue of any stored batch is unknown.

        The catalogue is unknown if the batch was adopted after the index was lost.
        """
        return self.is_referred_to(UNKNOWN)


class Queues:
    """Lists batches in the orders of sending and of eviction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def next_to_send(self, lane: Lane, exclude: Keys = ()) -> Iterator[Entry]:
        """Return the batches of a lane, the most important first.

        Among equally important batches, the newest comes first.  Batches whose id is in `exclude` are left out.
        """
        return entries(self._db, "WHERE lane = ? ORDER BY priority, id DESC", (lane.value,), exclude)

    def newest(self, lane: Lane, limit: int, boot: int, since_us: int, exclude: Keys = ()) -> Iterator[Entry]:
        """Return the fresh batches of a lane in the order of sending.

        A batch is fresh if it is among the `limit` newest batches of all lanes and was stored in `boot` at or
        after `since_us` (CLOCK_BOOTTIME).  Batches whose id is in `exclude` are left out.
        """
        clauses = (
            f"WHERE id > ({_NTH_NEWEST}) AND +boot = ? AND +stored_at_us >= ? AND +lane = ? ORDER BY +priority, id DESC"
        )
        return entries(self._db, clauses, (limit, boot, since_us, lane.value), exclude)

    def not_newest(self, lane: Lane, limit: int, boot: int, since_us: int, exclude: Keys = ()) -> Iterator[Entry]:
        """Return the batches of a lane that are not fresh (see `newest`), in the order of sending.

        Batches whose id is in `exclude` are left out.
        """
        clauses = (
            f"WHERE lane = ? AND NOT (+id > ({_NTH_NEWEST}) AND boot = ? AND stored_at_us >= ?)"
            " ORDER BY priority, id DESC"
        )
        return entries(self._db, clauses, (lane.value, limit, boot, since_us), exclude)

    def next_to_evict(self, lane: Lane) -> Iterator[Entry]:
        """Return the batches of a lane that take space on the disk, the least important first.

        Among equally important batches, the oldest comes first.
        """
        return entries(self._db, "WHERE lane = ? AND withdrawn IS NULL ORDER BY priority DESC, id", (lane.value,))

    def checkpoints_to_evict(self) -> Iterator[Entry]:
        """Return the checkpoints of open windows whose file is still there, in the order of eviction."""
        return entries(self._db, "WHERE lane = ? AND withdrawn IS NULL ORDER BY priority DESC, id", (WAITS,))

    def stored_before(self, boot: int, before_us: int, limit: int) -> list[Entry]:
        """Return up to `limit` batches that were stored in `boot` before `before_us` (CLOCK_BOOTTIME), oldest first."""
        clauses = "WHERE boot = ? AND stored_at_us < ? ORDER BY stored_at_us LIMIT ?"
        return list(entries(self._db, clauses, (boot, before_us, limit)))


class Checkpoints:
    """Reads and changes the checkpoints of windows that are not stored yet."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> list[Entry]:
        """Return all checkpoints of windows that are not stored yet, including those whose file was removed."""
        return list(entries(self._db, f"WHERE lane = {WAITS} ORDER BY id", ()))

    def of(self, windows: Collection[str]) -> list[Entry]:
        """Return the checkpoints of the windows with these ids."""
        if not windows:
            return []
        where = f"WHERE lane = {WAITS} AND window IN {LISTED} ORDER BY id"
        return list(entries(self._db, where, (listed(windows),)))

    def promote(self, row: int) -> None:
        """Turn a checkpoint into an ordinary batch, so that it is sent."""
        self._db.execute("UPDATE batches SET lane = ? WHERE id = ?", (Lane.LIVE.value, row))

    def withdraw(self, row: int, reason: Reason) -> None:
        """Record that the file of a checkpoint is removed, and why."""
        self._db.execute("UPDATE batches SET size = 0, withdrawn = ? WHERE id = ?", (reason.value, row))


class Usage:
    """Reads how many batches each lane has, and their bytes.  Triggers keep these figures, so reading them is cheap."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def stored_bytes(self) -> int:
        """Return the bytes of all batches and checkpoints."""
        return int(self._db.execute("SELECT sum(bytes) FROM usage").fetchone()[0])

    def lanes(self) -> dict[Lane, tuple[int, int]]:
        """Return the number and the bytes of the batches in each lane, without checkpoints of open windows."""
        rows = self._db.execute("SELECT * FROM usage WHERE lane <> ?", (WAITS,))
        return {lane_of(lane): (batches, size) for lane, batches, size in rows}

    def checkpoints(self) -> tuple[int, int]:
        """Return the number and the bytes of the checkpoints of open windows.

        The number includes checkpoints whose file was removed.
        """
        batches, size = self._db.execute("SELECT batches, bytes FROM usage WHERE lane = ?", (WAITS,)).fetchone()
        return int(batches), int(size)

    def recount(self) -> None:
        """Count the batches and the bytes of each lane again, because damage may have made the figures wrong.

        Only recovery uses this method, because its cost grows with the number of batches.
        """
        self._db.execute(
            "UPDATE usage SET (batches, bytes) ="
            " (SELECT count(*), coalesce(sum(size), 0) FROM batches WHERE batches.lane = usage.lane)"
        )

    def oldest_stored_wall_us(self) -> int | None:
        """Return the time that the wall clock showed when the oldest batch was stored, or None if there is no batch."""
        oldest = self._db.execute("SELECT stored_wall_us FROM batches ORDER BY id LIMIT 1").fetchone()
        return None if oldest is None else int(oldest[0])


def entries(
    database: sqlite3.Connection, clauses: str, values: tuple[object, ...], exclude: Keys = ()
) -> Iterator[Entry]:
    """Yield the batches that `clauses` of a SELECT statement choose, except batches whose id is in `exclude`."""
    statement = f"SELECT {_ENTRY_COLUMNS} FROM batches {clauses}"
    for row in database.execute(statement, values):
        if row[1:3] in exclude:
            continue
        id_, epoch, seq, lane, priority, campaign, size, digest, *more = row
        samples, first_t_us, last_t_us, refers, window, fragment, fragments, withdrawn = more
        yield Entry(
            id_,
            epoch,
            seq,
            Lane.LIVE if lane == WAITS else lane_of(lane),
            priority,
            campaign,
            size,
            digest,
            samples,
            first_t_us,
            last_t_us,
            refers,
            window,
            fragment,
            fragments,
            lane == WAITS,
            None if withdrawn is None else reason_of(withdrawn),
        )
