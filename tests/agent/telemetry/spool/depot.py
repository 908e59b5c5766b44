"""Provides an outbox over a real spool on a simulated disk, and opens the batches that it sealed."""

import errno
import os
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats.topics import Lane
from agent.formats.up.columns import Event, Window
from agent.formats.up.decode import decode_window
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import unseal
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import Entry
from tests.agent.formats.up.windows import CLOCK
from tests.agent.telemetry.spool.store import Store

VEHICLE = "0f8fad5b-d9cb-469f-a165-70867728950e"
DEVICE = ec.generate_private_key(ec.SECP256R1())
FLEET = RecipientPrivateKey.generate("X25519")
LANES = (Lane.LIVE, Lane.EVENTS)


@dataclass
class TestDisk(Disk):
    """A disk that refuses files while `full` is set, and hangs while `free` is not set."""

    __test__ = False
    full: bool = False
    free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.free.set()

    def create_file(self, path: Path, content: bytes) -> None:
        assert self.free.wait(10)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().create_file(path, content)


@dataclass
class LedgerDatabase:
    """Opens databases that fail: the ledger alone while `refuses` is set, every read while `fails` is set."""

    refuses: bool = False
    fails: bool = False
    commits_to_fail: int = 0
    done: bool = False

    def fail_commits(self, count: int, *, done: bool) -> None:
        """Let the next `count` commits report an error, after they happened (`done`) or in place of them."""
        self.commits_to_fail, self.done = count, done

    def __call__(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=_Refusing)
        assert isinstance(database, _Refusing)
        database.ledger = self
        return database


class _Refusing(sqlite3.Connection):
    ledger: LedgerDatabase

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith("INSERT INTO totals") and self.ledger.refuses:
            raise _out_of_reach("the ledger is out of reach")
        if self.ledger.fails:
            raise _out_of_reach("the index is out of reach")
        if statement == "COMMIT" and self.ledger.commits_to_fail:
            self.ledger.commits_to_fail -= 1
            if self.ledger.done:
                super().execute(statement)
            raise _out_of_reach("the commit reports an error")
        return super().execute(statement, *values)


def _out_of_reach(what: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[misc]
    return error


class Depot:
    def __init__(self, folder: Path, *, batch_max_bytes: int = 60_000, pending_max_bytes: int = 8_000_000) -> None:
        self.disk = TestDisk()
        self.ledger = LedgerDatabase()
        self.spool = Store.open(
            folder,
            quota_bytes=50_000_000,
            max_age_s=1e9,
            reserve_bytes=0,
            disk=self.disk,
            open_database=self.ledger,
        )
        sealer = Sealer(VEHICLE, DEVICE, FLEET.public, lambda: 1_000_000)
        self.outbox = Outbox(
            self.spool,
            sealer,
            lambda: CLOCK,
            batch_max_bytes=batch_max_bytes,
            pending_max_bytes=pending_max_bytes,
        )

    def entries(self) -> list[Entry]:
        """Return the waiting batches, in the order of storing."""
        return sorted(self.spool.pending(100_000, exclude=(), lanes=LANES), key=lambda entry: entry.row)

    def windows(self) -> list[Window]:
        """Return the windows of the waiting batches, opened, in the order of storing."""
        contents = [self.spool.read(entry) for entry in self.entries()]
        return [decode_window(unseal(content, FLEET, DEVICE.public_key())[1]) for content in contents if content]

    def events(self, kind: str | None = None) -> list[Event]:
        return [event for window in self.windows() for event in window.events if kind in (None, event.kind)]

    def lost(self) -> dict[str, int]:
        """Return the number of lost samples by reason."""
        return {str(reason): total.samples for reason, total in self.spool.counts().lost.items()}

    def recorded(self) -> list[Loss]:
        return [loss for _, loss in self.spool.unreported_losses(1_000)]
