"""Opens the spool's index, runs its transactions, and keeps the state of the spool as a whole (the table `meta`).

Every other table has a class in one of the modules batches, boot_records, ledger, catalogues and progress.

Invariant: a committed transaction survives a power cut (WAL, synchronous=FULL).

Methods raise sqlite3.Error; agent.telemetry.spool.transactions finds out whether the disk or the index is at fault.
"""

import functools
import sqlite3
from pathlib import Path
from typing import Any

from agent.formats.topics import Lane
from agent.telemetry.spool.batches import Checkpoints, Queues, Rows, Usage
from agent.telemetry.spool.boot_records import Boots
from agent.telemetry.spool.boots import distances_us
from agent.telemetry.spool.catalogues import Catalogues
from agent.telemetry.spool.ledger import HandedOut, Ledger
from agent.telemetry.spool.progress import Buses, Reached, ResumePoints
from agent.telemetry.spool.schema import Connect, prepare


class Index:
    """The open database of the index.

    To write, call `begin` and then `commit`; `close` rolls back instead.  Reading needs no transaction.
    """

    def __init__(self, connection: sqlite3.Connection, handed_out: HandedOut | None = None) -> None:
        self._db = connection
        self.rows = Rows(connection)
        self.queues = Queues(connection)
        self.checkpoints = Checkpoints(connection)
        self.usage = Usage(connection)
        self.ledger = Ledger(connection, handed_out or HandedOut())
        self.catalogues = Catalogues(connection)
        self.resume_points = ResumePoints(connection)
        self.reached = Reached(connection)
        self.buses = Buses(connection)
        self.boots = Boots(connection)

    @classmethod
    def open(cls, path: Path, open_database: Connect, *, new_epoch: str, handed_out: HandedOut) -> "Index":
        """Open the index in the file `path`, and create its tables if the file is new.

        Raises sqlite3.DatabaseError if the file is damaged or has another version.
        """
        database = open_database(path)
        try:
            prepare(database, new_epoch=new_epoch, last_loss_id=handed_out.last_id)
        except BaseException:
            database.close()
            raise
        return cls(database, handed_out)

    def close(self) -> None:
        """Close the database.  A transaction that was not committed is rolled back."""
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
        """The epoch of the spool, which stays the same until the index is lost or damaged."""
        return str(self._one("SELECT epoch FROM meta"))

    @functools.cached_property
    def next_seq(self) -> int:
        """The sequence number that the next batch gets."""
        return int(self._one("SELECT next_seq FROM meta"))

    def set_next_seq(self, seq: int) -> None:
        """Note that numbers below `seq` are used up."""
        self._db.execute("UPDATE meta SET next_seq = ?", (seq,))
        self.next_seq = seq

    @functools.cached_property
    def last_append(self) -> str:
        """The token of the last append that was committed, or an empty string."""
        return str(self._one("SELECT last_append FROM meta"))

    def set_last_append(self, token: str) -> None:
        """Store the token of the append that this transaction makes."""
        self._db.execute("UPDATE meta SET last_append = ?", (token,))
        self.last_append = token

    # ---- state

    def recovered(self) -> bool:
        """Return whether this index lists every file that was found when it was created."""
        return bool(self._one("SELECT recovered FROM meta"))

    def set_recovered(self) -> None:
        """Record that the index lists every file found at start-up."""
        self._db.execute("UPDATE meta SET recovered = 1")

    def collecting_since_us(self) -> int | None:
        """Return when an agent began to collect (us since the Unix epoch), or None if all samples are stored."""
        since: int | None = self._one("SELECT collecting_since_us FROM meta")
        return since

    def set_collecting(self, since_us: int | None) -> None:
        """Record when an agent began to collect (us since the Unix epoch), or None if all samples are stored."""
        self._db.execute("UPDATE meta SET collecting_since_us = ?", (since_us,))

    def check(self) -> None:
        """Read every table except `batches`.  Raises sqlite3.DatabaseError or ValueError for an impossible value."""
        self.resume_points.all()
        self.reached.all()
        self.buses.all()
        self.catalogues.all()
        self.ledger.check()
        distances_us(self.boots.all())
        if self.usage.lanes().keys() != set(Lane) or self.next_seq < 1:
            raise sqlite3.DatabaseError("the index lacks a lane or has an impossible sequence number")

    def _one(self, statement: str) -> Any:
        return self._db.execute(statement).fetchone()[0]
