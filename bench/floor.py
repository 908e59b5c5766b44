"""Measures the least cost of a durable batch, which no faster decoder or codec can reduce.

A finished body is signed and sealed.  Then its file is written and synced, the folder is synced, and a row of 100 bytes
is committed (SQLite, WAL, synchronous=FULL).  Even the simplest spool, without limits, would take these steps.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats.topics import Lane
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import Header, seal
from agent.system import durable
from bench.pipeline import VEHICLE

EPOCH: Final = "0" * 32


class Floor:
    """Makes batches of `bodies` durable in a new `folder`, one after the other, as the simplest spool would."""

    def __init__(self, bodies: Sequence[bytes], folder: Path) -> None:
        self._bodies = bodies
        self._folder = folder
        self._device, self._recipient = ec.generate_private_key(ec.SECP256R1()), RecipientPrivateKey.generate().public
        self._key_id = self._recipient.key_id
        self._seq = 0
        folder.mkdir()
        self._database = sqlite3.connect(folder / "index.sqlite3", isolation_level=None)
        for pragma in ("page_size = 1024", "journal_mode = WAL", "synchronous = FULL"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE batches (id INTEGER PRIMARY KEY, row BLOB)")

    def run(self) -> None:
        """Sign and seal all bodies, and make them durable."""
        for body in self._bodies:
            self._seq += 1
            suite, now_us = self._recipient.suite, time.time_ns() // 1_000
            header = Header(VEHICLE, EPOCH, self._seq, Lane.LIVE, self._key_id, suite, now_us)
            durable.create_file(self._folder / f"{self._seq}.batch", seal(header, body, self._device, self._recipient))
            durable.fsync_directory(self._folder)
            self._database.execute("INSERT INTO batches VALUES (?, ?)", (self._seq, bytes(100)))

    def close(self) -> None:
        """Close the database."""
        self._database.close()
