"""The spool's index: which batches are stored, in which order, and how far that goes.  Touches the world.

Invariant: every statement costs the same at any backlog (each is answered by an index of the tables; totals are kept by
triggers, not counted), and a transaction that committed survives a power cut (WAL, synchronous=FULL).

What each append asks for is kept in memory as well: the identity, the catalogues, and how far sources and campaigns are
durable.  It is written with the tables, so an index whose transaction did not commit must be closed: what is opened in
its place reads what the disk holds.

Raises sqlite3.Error; agent.telemetry.spool_transactions decides what that means.
"""
# ruff: noqa: S608  # statements are put together from constants; values are always bound

import functools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from agent.formats.topics import Lane
from agent.telemetry.losses import Reason
from agent.telemetry.spool_batch import Entry
from agent.telemetry.spool_catalogues import Catalogues
from agent.telemetry.spool_ledger import Ledger
from agent.telemetry.spool_schema import LISTED, PROVISIONAL, Connect, lane_of, listed, prepare, reason_of

_ENTRY_COLUMNS: Final = (
    "id, epoch, seq, lane, priority, campaign, size, digest, samples, first_t_us, last_t_us, refers,"
    " replaces, withdrawn"
)
_NTH_NEWEST: Final = "SELECT coalesce((SELECT id FROM batches ORDER BY id DESC LIMIT 1 OFFSET ?), 0)"

Keys = Collection[tuple[str, int]]  # of batches


class Index:
    """The open database.  `begin` … `commit` or `close`; reading works outside of transactions, too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.ledger = Ledger(connection)
        self.catalogues = Catalogues(connection)

    @classmethod
    def open(cls, path: Path, open_database: Connect, *, new_epoch: str, told: int) -> "Index":
        """Open, creating the tables in a new file.  Raises sqlite3.DatabaseError where the file is damaged or of
        another version."""
        database = open_database(path)
        try:
            prepare(database, new_epoch=new_epoch, told=told)
        except BaseException:
            database.close()
            raise
        index = cls(database)
        index.ledger.told = told
        return index

    def close(self) -> None:
        """Close.  What was not committed is rolled back."""
        self._db.close()

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable."""
        self._db.execute("COMMIT")

    # ---- identity

    @functools.cached_property
    def epoch(self) -> str:
        """The life of this spool."""
        return str(self._one("SELECT epoch FROM meta"))

    @functools.cached_property
    def next_seq(self) -> int:
        """The sequence number that the next batch gets."""
        return int(self._one("SELECT next_seq FROM meta"))

    def set_next_seq(self, seq: int) -> None:
        """Numbers below `seq` are used up."""
        self._db.execute("UPDATE meta SET next_seq = ?", (seq,))
        self.next_seq = seq

    def recovered(self) -> bool:
        """Whether this index knows every file that it found when it was made."""
        return bool(self._one("SELECT recovered FROM meta"))

    def set_recovered(self) -> None:
        """It does now."""
        self._db.execute("UPDATE meta SET recovered = 1")

    def check_rows(self) -> None:
        """Read every table but `batches`.  Raises sqlite3.DatabaseError where a value cannot be one of ours."""
        self.positions()
        self.reached()
        self.catalogues.all()
        self.ledger.check()
        if self.usage().keys() != set(Lane) or self.next_seq < 1:
            raise sqlite3.DatabaseError("index lacks rows")

    # ---- batches

    def add(self, entry: Entry, stored_at_s: float) -> int:
        """Add a row and return its position; `entry.position` is ignored."""
        cursor = self._db.execute(
            "INSERT INTO batches (epoch, seq, lane, priority, campaign, size, digest, stored_at_s, samples, first_t_us,"
            " last_t_us, refers, replaces, withdrawn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.epoch,
                entry.seq,
                PROVISIONAL if entry.provisional else entry.lane.value,
                entry.priority,
                entry.campaign,
                entry.size_bytes,
                entry.digest,
                stored_at_s,
                entry.samples,
                entry.first_t_us,
                entry.last_t_us,
                entry.refers,
                " ".join(map(str, entry.replaces)),
                entry.withdrawn,
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def remove(self, *positions: int) -> None:
        """Remove rows."""
        self._db.execute(f"DELETE FROM batches WHERE id IN {LISTED}", (listed(positions),))

    def promote(self, position: int) -> None:
        """A provisional batch becomes an ordinary one."""
        self._db.execute("UPDATE batches SET lane = ? WHERE id = ?", (Lane.LIVE.value, position))

    def withdraw(self, position: int, reason: Reason) -> None:
        """The bytes of a provisional batch go."""
        self._db.execute("UPDATE batches SET size = 0, withdrawn = ? WHERE id = ?", (reason.value, position))

    def find(self, epoch: str, seq: int) -> Entry | None:
        """The batch of that name, where it is stored."""
        return next(self._entries("WHERE epoch = ? AND seq = ?", (epoch, seq)), None)

    def sendable(self, epoch: str, seqs: Iterable[int]) -> list[Entry]:
        """The batches of those names that are stored and may have been sent."""
        where = f"WHERE epoch = ? AND seq IN {LISTED} AND lane <> {PROVISIONAL}"
        return list(self._entries(where, (epoch, listed(seqs))))

    def at(self, position: int) -> Entry | None:
        """The batch at `position`, where it is stored."""
        return next(self._entries("WHERE id = ?", (position,)), None)

    def all(self) -> Iterator[Entry]:
        """Every batch, in order of arrival; for recovery only."""
        return self._entries("ORDER BY id", ())

    def next_to_send(self, lane: Lane, exclude: Keys = ()) -> Iterator[Entry]:
        """Batches of a lane: the most important first, of those the newest first."""
        return self._entries("WHERE lane = ? ORDER BY priority, id DESC", (lane.value,), exclude)

    def newest(self, lane: Lane, limit: int, from_s: float, to_s: float, exclude: Keys = ()) -> Iterator[Entry]:
        """Of the `limit` newest batches of all lanes those of this one that were stored then (Unix epoch), in the order
        of sending."""
        clauses = (
            f"WHERE id > ({_NTH_NEWEST}) AND +stored_at_s BETWEEN ? AND ? AND +lane = ? ORDER BY +priority, id DESC"
        )
        return self._entries(clauses, (limit, from_s, to_s, lane.value), exclude)

    def not_newest(self, lane: Lane, limit: int, from_s: float, to_s: float, exclude: Keys = ()) -> Iterator[Entry]:
        """The other batches of that lane, in the order of sending."""
        clauses = (
            f"WHERE lane = ? AND NOT (+id > ({_NTH_NEWEST}) AND stored_at_s BETWEEN ? AND ?) ORDER BY priority, id DESC"
        )
        return self._entries(clauses, (lane.value, limit, from_s, to_s), exclude)

    def next_to_evict(self, lane: Lane) -> Iterator[Entry]:
        """Batches of a lane: the least important first, of those the oldest first."""
        return self._entries("WHERE lane = ? ORDER BY priority DESC, id", (lane.value,))

    def provisional_to_evict(self) -> Iterator[Entry]:
        """Provisional ones, in that order."""
        where = "WHERE lane = ? AND withdrawn IS NULL ORDER BY priority DESC, id"
        return self._entries(where, (PROVISIONAL,))

    def provisional(self) -> list[Entry]:
        """All provisional ones, also those withdrawn."""
        return list(self._entries("WHERE lane = ? ORDER BY id", (PROVISIONAL,)))

    def stored_between(self, since_s: float, until_s: float, limit: int) -> list[Entry]:
        """The oldest of the batches that were stored from `since_s` to before `until_s` (Unix epoch)."""
        clauses = "WHERE stored_at_s >= ? AND stored_at_s < ? AND withdrawn IS NULL ORDER BY stored_at_s LIMIT ?"
        return list(self._entries(clauses, (since_s, until_s, limit)))

    def stored_bytes(self) -> int:
        """Of all batches, also provisional ones."""
        return int(self._one("SELECT sum(bytes) FROM usage"))

    def usage(self) -> dict[Lane, tuple[int, int]]:
        """Batches and bytes of each lane, without provisional ones."""
        rows = self._db.execute("SELECT * FROM usage WHERE lane <> ?", (PROVISIONAL,))
        return {lane_of(lane): (batches, size) for lane, batches, size in rows}

    def provisional_usage(self) -> tuple[int, int]:
        """Provisional batches, also those withdrawn, and their bytes."""
        batches, size = self._db.execute("SELECT batches, bytes FROM usage WHERE lane = ?", (PROVISIONAL,)).fetchone()
        return int(batches), int(size)

    def count_usage(self) -> None:
        """Correct all of these after damage; for recovery only."""
        self._db.execute(
            "UPDATE usage SET (batches, bytes) ="
            " (SELECT count(*), coalesce(sum(size), 0) FROM batches WHERE batches.lane = usage.lane)"
        )

    def oldest_stored_at_s(self) -> float | None:
        """When the oldest batch was stored."""
        oldest = self._one("SELECT min(stored_at_s) FROM batches")
        return None if oldest is None else float(oldest)

    def is_referred_to(self, digest: bytes) -> bool:
        """Whether a stored batch needs the catalogue."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM batches WHERE refers = ?)", digest))

    def has_adopted(self) -> bool:
        """Whether batches of earlier epochs are stored: what they refer to is not known."""
        other = "SELECT EXISTS (SELECT 1 FROM batches WHERE epoch"
        return any(self._one(f"{other} {differs} ?)", self.epoch) for differs in ("<", ">"))

    # ---- sources

    def positions(self) -> dict[str, int]:
        """How far each source is durable."""
        return dict(self._positions)

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT source, position FROM positions"))

    def set_positions(self, positions: Mapping[str, int]) -> None:
        """Set those of the named sources."""
        self._db.executemany(
            "INSERT INTO positions VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = excluded.position",
            list(positions.items()),
        )
        self._positions.update(positions)

    def replace_positions(self, positions: Mapping[str, int]) -> None:
        """Set those of the named sources and forget all others."""
        self._db.execute("DELETE FROM positions")
        self._positions.clear()
        self.set_positions(positions)

    def reached(self) -> dict[str, int]:
        """Up to which time each campaign is durable."""
        return dict(self._reached)

    @functools.cached_property
    def _reached(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT campaign, t_us FROM reached"))

    def set_reached(self, campaign: str, t_us: int) -> None:
        """Up to `t_us` now."""
        self._db.execute("INSERT OR REPLACE INTO reached VALUES (?, ?)", (campaign, t_us))
        self._reached[campaign] = t_us

    def replace_reached(self, reached: Mapping[str, int]) -> None:
        """Set those of the named campaigns and forget all others."""
        self._db.execute("DELETE FROM reached")
        self._reached.clear()
        for campaign, t_us in reached.items():
            self.set_reached(campaign, t_us)

    def collecting_since_us(self) -> int | None:
        """Since when an agent has been collecting that may hold something in memory only."""
        since: int | None = self._one("SELECT collecting_since_us FROM meta")
        return since

    def set_collecting(self, since_us: int | None) -> None:
        """Since `since_us`; None: nothing is in memory only."""
        self._db.execute("UPDATE meta SET collecting_since_us = ?", (since_us,))

    # ---- rows

    def _one(self, statement: str, *values: object) -> Any:
        return self._db.execute(statement, values).fetchone()[0]

    def _entries(self, clauses: str, values: tuple[object, ...], exclude: Keys = ()) -> Iterator[Entry]:
        statement = f"SELECT {_ENTRY_COLUMNS} FROM batches {clauses}"
        for row in self._db.execute(statement, values):
            if row[1:3] in exclude:
                continue
            id_, epoch, seq, lane, priority, campaign, size, digest, *more, replaces, withdrawn = row
            samples, first_t_us, last_t_us, refers = more
            yield Entry(
                id_,
                epoch,
                seq,
                Lane.LIVE if lane == PROVISIONAL else lane_of(lane),
                priority,
                campaign,
                size,
                digest,
                samples,
                first_t_us,
                last_t_us,
                refers,
                tuple(map(int, replaces.split())),
                lane == PROVISIONAL,
                None if withdrawn is None else reason_of(withdrawn),
            )
