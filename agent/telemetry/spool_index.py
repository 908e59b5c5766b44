"""The spool's index: SQLite tables, and the statements on them, one connection.  Touches the world.

Invariant: every statement here costs the same at any backlog (each is answered by an index; totals are kept by
triggers, not counted), and a transaction that committed survives a power cut (WAL, synchronous=FULL).

    meta       epoch, next_seq, whether the files that a new index found are taken in (`recovered`), and since when an
               agent has been collecting that has not said that it stored all (`collecting_since_us`)
    batches    one row a stored batch; `id` ascends with arrival and is never used twice; lane 0: provisional ones (of
               lane live), also those whose bytes had to go (`withdrawn`: why)
    usage      batches and bytes of each lane; kept by triggers on `batches`
    losses     the ledger: not reported yet (`reported_in` NULL), reported inside the batch `reported_in`, to be told
               again because that is lost (-1), or told: the receiver has the batch (0; the newest MAX_TOLD are kept for
               `status --ledger`)
    totals     running totals since the epoch began: acknowledged, adopted, replaced, and lost by reason
    positions  how far each source is durable
    reached    up to which time (of frames) each campaign is durable, in this run of the agent
    catalogues what batches may refer to: the sealed batch that carried it (kept in a file of its own), and what the
               receiver said to it

What each append asks for is kept in memory as well: the identity, the catalogues, and how far sources and campaigns are
durable.  It is written with the tables, so an index whose transaction did not commit must be closed: what is opened in
its place reads what the disk holds.

Raises sqlite3.Error; agent.telemetry.spool decides what that means.
"""
# ruff: noqa: S608  # statements are put together from constants of this file; values are always bound

import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from agent.formats.topics import Lane
from agent.telemetry.losses import Loss, Reason, adjacent, merge
from agent.telemetry.retention import Held

VERSION: Final = 3  # PRAGMA user_version
MAX_UNREPORTED: Final = 1_000  # loss records that wait to be reported; beyond it records of one reason are merged
MAX_TOLD: Final = 1_000
_SCHEMA: Final = """
CREATE TABLE meta (epoch TEXT NOT NULL, next_seq INTEGER NOT NULL, recovered INTEGER NOT NULL) STRICT;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL, priority INTEGER NOT NULL,
    campaign TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, stored_at_s REAL NOT NULL,
    samples INTEGER NOT NULL, first_t_us INTEGER, last_t_us INTEGER,
    UNIQUE (epoch, seq)
) STRICT;
CREATE INDEX by_value ON batches (lane, priority, id DESC);  -- forwards: next to send; backwards: next to evict
CREATE INDEX by_age ON batches (stored_at_s);
CREATE TABLE usage (lane INTEGER PRIMARY KEY, batches INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE TRIGGER batch_added AFTER INSERT ON batches BEGIN
    UPDATE usage SET batches = batches + 1, bytes = bytes + NEW.size WHERE lane = NEW.lane;
END;
CREATE TRIGGER batch_removed AFTER DELETE ON batches BEGIN
    UPDATE usage SET batches = batches - 1, bytes = bytes - OLD.size WHERE lane = OLD.lane;
END;
CREATE TABLE losses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reason TEXT NOT NULL, lane INTEGER, bus TEXT, campaign TEXT NOT NULL, detail TEXT NOT NULL, epoch TEXT NOT NULL,
    batches INTEGER NOT NULL, samples INTEGER NOT NULL, frames INTEGER NOT NULL,
    first_seq INTEGER, last_seq INTEGER, first_t_us INTEGER, last_t_us INTEGER, reported_in INTEGER
) STRICT;
CREATE INDEX by_report ON losses (reported_in, reason, id);
CREATE TABLE totals (
    name TEXT PRIMARY KEY, batches INTEGER NOT NULL, samples INTEGER NOT NULL, frames INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE positions (source TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
_SINCE_2: Final = """
ALTER TABLE batches ADD COLUMN refers BLOB;
CREATE INDEX by_catalogue ON batches (refers) WHERE refers IS NOT NULL;
CREATE TABLE catalogues (
    digest BLOB PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, verdict TEXT, checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""
_SINCE_3: Final = f"""
ALTER TABLE batches ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN withdrawn TEXT;
INSERT INTO usage VALUES (0, 0, 0);
CREATE TRIGGER batch_changed AFTER UPDATE OF lane, size ON batches BEGIN
    UPDATE usage SET batches = batches - 1, bytes = bytes - OLD.size WHERE lane = OLD.lane;
    UPDATE usage SET batches = batches + 1, bytes = bytes + NEW.size WHERE lane = NEW.lane;
END;
ALTER TABLE meta ADD COLUMN collecting_since_us INTEGER;
CREATE TABLE reached (campaign TEXT PRIMARY KEY, t_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_PROVISIONAL: Final = 0  # in the column `lane`
_TABLES: Final = ";".join((_SCHEMA, _SINCE_2, _SINCE_3))
_LOSS_COLUMNS: Final = (
    "reason, lane, bus, campaign, detail, epoch, batches, samples, frames, first_seq, last_seq, first_t_us, last_t_us"
)
_ENTRY_COLUMNS: Final = (
    "id, epoch, seq, lane, priority, campaign, size, digest, samples, first_t_us, last_t_us, refers,"
    " replaces, withdrawn"
)
_NTH_NEWEST: Final = "SELECT coalesce((SELECT id FROM batches ORDER BY id DESC LIMIT 1 OFFSET ?), 0)"
_LISTED: Final = "(SELECT value FROM json_each(?))"  # what `_listed` made: one statement, however many
_TOLD: Final = 0  # in the column `reported_in`; positions count from 1
_AGAIN: Final = -1
ACKNOWLEDGED: Final = "acknowledged"
ADOPTED: Final = "adopted"
REPLACED: Final = "replaced"
_REASONS: Final = frozenset(Reason)
_LANES: Final = frozenset(Lane)

Keys = Collection[tuple[str, int]]  # of batches
Connect = Callable[[Path], sqlite3.Connection]


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database file.  One thread at a time may use it; the spool sees to that."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _definitions(database: sqlite3.Connection) -> set[tuple[str, str]]:
    """Name and text of each table, index and trigger, however it is spaced."""
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, "".join(text.split())) for name, text in rows}


@functools.cache
def _sound_definitions() -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        return _definitions(database)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored batch.  (`epoch`, `seq`) names it for ever; `position` ascends with arrival in this spool.

    `refers`: digest of the catalogue that it needs to be read.  `replaces`: numbers of the provisional batches whose
    place it took.  `provisional`: it waits for the batch of its whole window; `withdrawn` then says why its bytes had
    to go meanwhile, if they had.
    """

    position: int
    epoch: str
    seq: int
    lane: Lane
    priority: int
    campaign: str
    size_bytes: int
    digest: bytes
    samples: int
    first_t_us: int | None
    last_t_us: int | None
    refers: bytes | None = None
    replaces: tuple[int, ...] = ()
    provisional: bool = False
    withdrawn: Reason | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Its identity within the vehicle."""
        return self.epoch, self.seq

    def as_held(self) -> Held:
        """As retention sees it."""
        return Held(self.position, self.lane, self.priority, self.size_bytes)


class Verdict(StrEnum):
    """What the receiver said to a catalogue."""

    CONFIRMED = "confirmed"  # it has it, durably: batches may refer to it
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Carrier:
    """A catalogue that is kept: the sealed batch `epoch`, `seq` that carried it, and what became of that.

    `checksum` is the SHA-256 of the sealed batch; `verdict` None: not known yet.
    """

    digest: bytes
    epoch: str
    seq: int
    verdict: Verdict | None
    checksum: bytes


@dataclass(frozen=True, slots=True)
class Total:
    """A running total."""

    batches: int
    samples: int
    frames: int


class Index:
    """The open database.  `begin` … `commit` or `close`; reading works outside of transactions, too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.told = 0
        """Losses up to this id may stand in a batch under way: nothing is merged into them, no id is used again."""
        self._all_reported = False  # as far as is known: saves looking

    @classmethod
    def open(cls, path: Path, open_database: Connect, *, new_epoch: str, told: int) -> "Index":
        """Open, creating the tables in a new file.  Raises sqlite3.DatabaseError where the file is damaged or of
        another version."""
        index = cls(open_database(path))
        index.told = told
        try:
            index._prepare(new_epoch)
        except BaseException:
            index.close()
            raise
        return index

    def _prepare(self, new_epoch: str) -> None:
        self._db.execute("PRAGMA page_size = 1024")  # of new files: whole pages are written
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 4194304")  # bytes: a long WAL is cut back after a checkpoint
        version = self._one("PRAGMA user_version")
        if version == 0 and self._one("SELECT count(*) FROM sqlite_schema") == 0:
            self._db.executescript(f"BEGIN IMMEDIATE;{_TABLES}")
            self._db.execute("INSERT INTO meta VALUES (?, 1, 0, NULL)", (new_epoch,))
            self._db.executemany("INSERT INTO usage VALUES (?, 0, 0)", [(lane.value,) for lane in Lane])
            self._db.execute("INSERT INTO sqlite_sequence VALUES ('losses', ?)", (self.told,))
            self._db.execute("COMMIT")
        elif version in (1, 2):
            since = (_SINCE_2, _SINCE_3) if version == 1 else (_SINCE_3,)
            self._db.executescript(";".join(("BEGIN IMMEDIATE", *since, "COMMIT")))
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"index has version {version}, this agent writes {VERSION}")
        if (verdict := self._one("PRAGMA integrity_check(1)")) != "ok":
            raise sqlite3.DatabaseError(f"index is damaged: {verdict}")
        if _definitions(self._db) != _sound_definitions():  # integrity_check does not read the text of a trigger
            raise sqlite3.DatabaseError(f"index is damaged: its tables or triggers are not those of version {VERSION}")

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
        self.carriers()
        self.unreported_losses(-1)
        self.reached()
        if self.totals().keys() - _REASONS - {ACKNOWLEDGED, ADOPTED, REPLACED}:
            raise sqlite3.DatabaseError("index counts what is neither acknowledged nor lost")
        if self.usage().keys() != _LANES or self.next_seq < 1:
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
                _PROVISIONAL if entry.provisional else entry.lane.value,
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
        self._db.execute(f"DELETE FROM batches WHERE id IN {_LISTED}", (_listed(positions),))

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
        where = f"WHERE epoch = ? AND seq IN {_LISTED} AND lane <> {_PROVISIONAL}"
        return list(self._entries(where, (epoch, _listed(seqs))))

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
        return self._entries(where, (_PROVISIONAL,))

    def provisional(self) -> list[Entry]:
        """All provisional ones, also those withdrawn."""
        return list(self._entries("WHERE lane = ? ORDER BY id", (_PROVISIONAL,)))

    def stored_between(self, since_s: float, until_s: float, limit: int) -> list[Entry]:
        """The oldest of the batches that were stored from `since_s` to before `until_s` (Unix epoch)."""
        clauses = "WHERE stored_at_s >= ? AND stored_at_s < ? AND withdrawn IS NULL ORDER BY stored_at_s LIMIT ?"
        return list(self._entries(clauses, (since_s, until_s, limit)))

    def stored_bytes(self) -> int:
        """Of all batches, also provisional ones."""
        return int(self._one("SELECT sum(bytes) FROM usage"))

    def usage(self) -> dict[Lane, tuple[int, int]]:
        """Batches and bytes of each lane, without provisional ones."""
        rows = self._db.execute("SELECT * FROM usage WHERE lane <> ?", (_PROVISIONAL,))
        return {_lane(lane): (batches, size) for lane, batches, size in rows}

    def provisional_usage(self) -> tuple[int, int]:
        """Provisional batches, also those withdrawn, and their bytes."""
        batches, size = self._db.execute("SELECT batches, bytes FROM usage WHERE lane = ?", (_PROVISIONAL,)).fetchone()
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

    # ---- the ledger

    def count(self, name: str, *, batches: int = 0, samples: int = 0, frames: int = 0) -> None:
        """Add to a running total."""
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET batches = batches +"
            " excluded.batches, samples = samples + excluded.samples, frames = frames + excluded.frames",
            (name, batches, samples, frames),
        )

    def totals(self) -> dict[str, Total]:
        """All running totals."""
        return {name: Total(*counts) for name, *counts in self._db.execute("SELECT * FROM totals")}

    def add_loss(self, loss: Loss) -> None:
        """Record a loss that waits to be reported, and count it."""
        self.count(loss.reason.value, batches=loss.batches, samples=loss.samples, frames=loss.frames)
        self.add_explanation(loss)

    def add_explanation(self, loss: Loss) -> None:
        """Record what waits to be reported and is counted already."""
        self._all_reported = False
        mergeable = "reported_in IS NULL AND reason = ? AND id > ? ORDER BY id DESC LIMIT 64"
        rows = self._losses(mergeable, loss.reason.value, self.told)
        same = next(((id_, waiting) for id_, waiting in rows if adjacent(waiting, loss)), None)
        if same is None and rows and self.unreported() >= MAX_UNREPORTED:
            same = rows[0]
        if same is not None:
            id_, waiting = same
            self._replace_loss(id_, merge(waiting, loss))
            return
        marks = ", ".join("?" * 13)
        self._db.execute(f"INSERT INTO losses ({_LOSS_COLUMNS}) VALUES ({marks})", _loss_row(loss))

    def _replace_loss(self, id_: int, loss: Loss) -> None:
        assignments = ", ".join(f"{name} = ?" for name in _LOSS_COLUMNS.split(", "))
        self._db.execute(f"UPDATE losses SET {assignments} WHERE id = ?", (*_loss_row(loss), id_))

    def unreported(self) -> int:
        """Loss records that no stored batch reports; of those that none has reported at most MAX_UNREPORTED, and one a
        reason after those `told`."""
        count = "SELECT count(*) FROM losses WHERE reported_in"
        return int(self._one(f"SELECT ({count} IS NULL) + ({count} = {_AGAIN})"))

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """The oldest of them, those that were reported before first, with the ids that `report` takes; -1: all."""
        if self._all_reported:
            return []
        again = self._losses(f"reported_in = {_AGAIN} ORDER BY id LIMIT ?", limit)
        left = limit if limit < 0 else limit - len(again)
        found = [*again, *self._losses("reported_in IS NULL ORDER BY id LIMIT ?", left)]
        self._all_reported = limit != 0 and not found
        return found

    def report(self, ids: Iterable[int], position: int) -> None:
        """Mark losses as reported inside the batch at `position`."""
        self._db.executemany("UPDATE losses SET reported_in = ? WHERE id = ?", [(position, id_) for id_ in ids])

    def tell_reported(self, positions: Iterable[int]) -> None:
        """The batches at `positions` arrived: the losses that they reported are told."""
        told = f"UPDATE losses SET reported_in = ? WHERE reported_in IN {_LISTED}"
        if self._db.execute(told, (_TOLD, _listed(positions))).rowcount:
            kept = "SELECT id FROM losses WHERE reported_in = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            oldest = self._db.execute(kept, (_TOLD, MAX_TOLD)).fetchone()
            if oldest is not None:
                self._db.execute("DELETE FROM losses WHERE reported_in = ? AND id <= ?", (_TOLD, oldest[0]))

    def unreport(self, position: int) -> None:
        """The batch at `position` will not arrive, or not again: the losses that it reported wait as they are under
        their ids, so that who hears of one twice knows it."""
        self._all_reported = False
        self._db.execute("UPDATE losses SET reported_in = ? WHERE reported_in = ?", (_AGAIN, position))

    def ledger(self) -> list[Loss]:
        """Every record that is kept, told or not."""
        return [_loss(row) for row in self._db.execute(f"SELECT {_LOSS_COLUMNS} FROM losses ORDER BY id")]

    def restore_ledger(self, losses: Iterable[tuple[int, Loss]], totals: Mapping[str, Total]) -> None:
        """Put back what `unreported_losses` and `totals` said before a transaction that is taken back."""
        self._all_reported = False
        self._db.execute("DELETE FROM losses WHERE reported_in IS NULL")
        marks = ", ".join("?" * 14)
        self._db.executemany(
            f"INSERT OR IGNORE INTO losses (id, {_LOSS_COLUMNS}) VALUES ({marks})",  # there: what waits again
            [(id_, *_loss_row(loss)) for id_, loss in losses],
        )
        self._db.execute("DELETE FROM totals")
        for name, total in totals.items():
            self.count(name, batches=total.batches, samples=total.samples, frames=total.frames)

    # ---- catalogues

    def carriers(self) -> dict[bytes, Carrier]:
        """Every catalogue that is kept, by digest; few."""
        return dict(self._carriers)

    @functools.cached_property
    def _carriers(self) -> dict[bytes, Carrier]:
        rows = self._db.execute("SELECT digest, epoch, seq, verdict, checksum FROM catalogues")
        return {
            digest: Carrier(digest, epoch, seq, None if verdict is None else Verdict(verdict), checksum)
            for digest, epoch, seq, verdict, checksum in rows
        }

    def set_carrier(self, carrier: Carrier) -> None:
        """Keep a catalogue, or another carrier of one."""
        self._db.execute(
            "INSERT OR REPLACE INTO catalogues VALUES (?, ?, ?, ?, ?)",
            (carrier.digest, carrier.epoch, carrier.seq, carrier.verdict, carrier.checksum),
        )
        self._carriers[carrier.digest] = carrier

    def judge_carriers(self, epoch: str, seqs: Collection[int], verdict: Verdict) -> None:
        """The receiver said so to these batches, of which some may have carried catalogues.

        One that was confirmed stays so: what refers to it waits until the receiver takes it again.
        """
        for carrier in self.carriers().values():
            if carrier.verdict is not Verdict.CONFIRMED and carrier.epoch == epoch and carrier.seq in seqs:
                self.set_carrier(replace(carrier, verdict=verdict))

    def drop_carrier(self, digest: bytes) -> None:
        """Keep a catalogue no longer."""
        self._db.execute("DELETE FROM catalogues WHERE digest = ?", (digest,))
        self._carriers.pop(digest, None)

    def replace_carriers(self, carriers: Iterable[Carrier]) -> None:
        """Keep these and no others."""
        self._db.execute("DELETE FROM catalogues")
        self._carriers.clear()
        for carrier in carriers:
            self.set_carrier(carrier)

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
                Lane.LIVE if lane == _PROVISIONAL else _lane(lane),
                priority,
                campaign,
                size,
                digest,
                samples,
                first_t_us,
                last_t_us,
                refers,
                tuple(map(int, replaces.split())),
                lane == _PROVISIONAL,
                None if withdrawn is None else _reason(withdrawn),
            )

    def _losses(self, where: str, *values: object) -> list[tuple[int, Loss]]:
        statement = f"SELECT id, {_LOSS_COLUMNS} FROM losses WHERE {where}"
        return [(id_, _loss(row)) for id_, *row in self._db.execute(statement, values)]


def _listed(numbers: Iterable[int]) -> str:
    return json.dumps(list(numbers))


def _loss(row: Iterable[Any]) -> Loss:
    reason, lane, *rest = row
    return Loss(_reason(reason), None if lane is None else _lane(lane), *rest)


def _reason(name: str) -> Reason:
    if name not in _REASONS:
        raise sqlite3.DatabaseError(f"index names a loss {name!r}")
    return Reason(name)


def _lane(number: int) -> Lane:
    if number not in _LANES:
        raise sqlite3.DatabaseError(f"index names a lane {number!r}")
    return Lane(number)


def _loss_row(loss: Loss) -> tuple[object, ...]:
    return (
        loss.reason.value,
        None if loss.lane is None else loss.lane.value,
        loss.bus,
        loss.campaign,
        loss.detail,
        loss.epoch,
        loss.batches,
        loss.samples,
        loss.frames,
        loss.first_seq,
        loss.last_seq,
        loss.first_t_us,
        loss.last_t_us,
    )
