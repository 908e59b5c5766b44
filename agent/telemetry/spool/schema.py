"""Defines the tables of the spool's index and their version, and checks values of rows.

    meta           epoch and next sequence number; whether the files that a new index found are adopted (`recovered`);
                   the token of the last append; when an agent began to collect, or NULL once everything is stored
                   (`collecting_since_us`)
    batches        one row for each stored batch.  A newer row has a larger `id`, and no `id` is used twice.  Lane 0 has
                   the checkpoints whose window may still close; if they are sent later, they travel in lane live.
                   `withdrawn` says why the file of such a checkpoint was removed, or why the bytes of another batch
                   are only in memory; `size` is then 0.  `boot` and `stored_at_us` (CLOCK_BOOTTIME) tell the age;
                   `stored_wall_us` is for people
    boots          the boots in which these batches were stored: agent.telemetry.spool.boots
    usage          batches and bytes of each lane; kept by triggers on `batches`
    losses         the ledger.  `reported_in` says where a record is: in the batch of this row (1 or more), in no batch
                   yet (NULL), waiting again because its batch is lost (-1), or arrived with its batch (0).  The newest
                   MAX_REPORTED of the arrived records are kept for `status --ledger`
    totals         running totals since the epoch began: acknowledged, adopted, and lost by reason
    resume_points  the number of the first frame that is not durable, for each pair of a source and a campaign
    reached        up to which frame time each campaign is durable, in this run of the agent
    buses          which buses the run collects from, and the name of the ring or log that holds their frames, or ''
    catalogues     one row for each kept catalogue: the id and the checksum of the sealed batch that carried the
                   catalogue, and the receiver's verdict on the catalogue.  A file holds a copy of that batch

A database that is damaged or has another version is refused.  The spool then sets it aside and makes a new one.
"""
# ruff: noqa: S608  # statements are composed of constants of this file

import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason

VERSION: Final = 1  # PRAGMA user_version
_TABLES: Final = f"""
CREATE TABLE meta (
    epoch TEXT NOT NULL, next_seq INTEGER NOT NULL, recovered INTEGER NOT NULL, last_append TEXT NOT NULL,
    collecting_since_us INTEGER
) STRICT;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL, priority INTEGER NOT NULL,
    campaign TEXT NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,
    boot INTEGER NOT NULL, stored_at_us INTEGER NOT NULL, stored_wall_us INTEGER NOT NULL,
    samples INTEGER NOT NULL, first_t_us INTEGER, last_t_us INTEGER,
    refers BLOB, window TEXT NOT NULL, fragment INTEGER NOT NULL, fragments INTEGER NOT NULL, withdrawn TEXT,
    UNIQUE (epoch, seq)
) STRICT;
CREATE INDEX by_value ON batches (lane, priority, id DESC);  -- forwards: next to send; backwards: next to evict
CREATE INDEX by_age ON batches (boot, stored_at_us);
CREATE INDEX by_catalogue ON batches (refers) WHERE refers IS NOT NULL;
CREATE INDEX by_window ON batches (window) WHERE lane = 0;
CREATE TABLE boots (
    number INTEGER PRIMARY KEY, boot_id TEXT NOT NULL, until_us INTEGER NOT NULL, earliest_us INTEGER,
    latest_us INTEGER
) STRICT;
CREATE TABLE usage (lane INTEGER PRIMARY KEY, batches INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE TRIGGER batch_added AFTER INSERT ON batches BEGIN
    UPDATE usage SET batches = batches + 1, bytes = bytes + NEW.size WHERE lane = NEW.lane;
END;
CREATE TRIGGER batch_removed AFTER DELETE ON batches BEGIN
    UPDATE usage SET batches = batches - 1, bytes = bytes - OLD.size WHERE lane = OLD.lane;
END;
CREATE TRIGGER batch_changed AFTER UPDATE OF lane, size ON batches BEGIN
    UPDATE usage SET batches = batches - 1, bytes = bytes - OLD.size WHERE lane = OLD.lane;
    UPDATE usage SET batches = batches + 1, bytes = bytes + NEW.size WHERE lane = NEW.lane;
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
CREATE TABLE resume_points (source TEXT PRIMARY KEY, point INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE reached (campaign TEXT PRIMARY KEY, t_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE buses (bus TEXT PRIMARY KEY, held_in TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE catalogues (
    digest BLOB PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, verdict TEXT, checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
WAITS: Final = 0  # in the column `lane`: a checkpoint whose window may still close
LISTED: Final = "(SELECT value FROM json_each(?))"  # values packed by `listed`; a statement takes any number of them
_REASONS: Final = frozenset(Reason)
_LANES: Final = frozenset(Lane)

Connect = Callable[[Path], sqlite3.Connection]


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the database file.  Only one thread at a time may use the connection; the spool ensures that."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def prepare(database: sqlite3.Connection, *, new_epoch: str, last_loss_id: int) -> None:
    """Create the tables if the file is new, and check the database.

    A new file gets the epoch `new_epoch`, and ids of its loss records begin after `last_loss_id`.  Raises
    sqlite3.DatabaseError if the file is damaged or has another version.
    """
    database.execute("PRAGMA page_size = 1024")  # SQLite writes whole pages, of which few bytes change
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA journal_size_limit = 4194304")  # bytes; SQLite cuts a longer WAL after a checkpoint
    (version,) = database.execute("PRAGMA user_version").fetchone()
    new = database.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if version == 0 and new:
        database.executescript(f"BEGIN IMMEDIATE;{_TABLES}")
        database.execute("INSERT INTO meta VALUES (?, 1, 0, '', NULL)", (new_epoch,))
        lanes = (WAITS, *(lane.value for lane in Lane))
        database.executemany("INSERT INTO usage VALUES (?, 0, 0)", [(lane,) for lane in lanes])
        database.execute("INSERT INTO sqlite_sequence VALUES ('losses', ?)", (last_loss_id,))
        database.execute("COMMIT")
    elif version != VERSION:
        raise sqlite3.DatabaseError(f"the index has version {version}, but this agent reads version {VERSION}")
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"the index is damaged: {verdict}")
    # The integrity check does not read the text of triggers, so it misses a flipped bit there.
    if _definitions(database) != _sound_definitions():
        raise sqlite3.DatabaseError(f"the index is damaged: its tables or triggers are not those of version {VERSION}")


def _definitions(database: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return name and text of each table, index and trigger, without spaces."""
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {(name, "".join(text.split())) for name, text in rows}


@functools.cache
def _sound_definitions() -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        return _definitions(database)


def listed(values: Iterable[int] | Iterable[str]) -> str:
    """Pack `values` into one parameter for a statement that contains LISTED."""
    return json.dumps(list(values))


def lane_of(number: int) -> Lane:
    """Return the lane that a row names by `number`.  Raises sqlite3.DatabaseError for an unknown number."""
    if number not in _LANES:
        raise sqlite3.DatabaseError(f"the index has an unknown lane {number!r}")
    return Lane(number)


def reason_of(name: str) -> Reason:
    """Return the reason that a row names by `name`.  Raises sqlite3.DatabaseError for an unknown name."""
    if name not in _REASONS:
        raise sqlite3.DatabaseError(f"the index has an unknown reason {name!r} for a loss")
    return Reason(name)
