"""Reads and writes the table of catalogues: which sealed batch carried each catalogue, and how the receiver answered.

The spool keeps few catalogues, so this table is held in memory as well.  If a transaction does not commit, the index
must be closed, because memory then differs from the disk.  Methods raise sqlite3.Error.
"""

import functools
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.formats.up.acks import Sealed
from agent.formats.up.seal import DIGEST_BYTES


class Verdict(StrEnum):
    """The receiver's answer to a catalogue."""

    CONFIRMED = "confirmed"  # the receiver has stored the catalogue durably, so batches may refer to it
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Carrier:
    """A catalogue that is kept, the sealed batch (`epoch`, `seq`) that carried it, and the receiver's verdict.

    `checksum` is the SHA-256 of the sealed batch.  `verdict` is None until the receiver has answered.
    """

    digest: bytes
    epoch: str
    seq: int
    verdict: Verdict | None
    checksum: bytes

    @property
    def sealed(self) -> Sealed:
        """Return the number and the digest by which an acknowledgement names the batch."""
        return Sealed(self.seq, self.checksum[:DIGEST_BYTES])


class Catalogues:
    """Reads and writes the catalogues of one index.  Methods that write must be called within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self) -> dict[bytes, Carrier]:
        """Return every kept catalogue, by digest."""
        return dict(self._carriers)

    @functools.cached_property
    def _carriers(self) -> dict[bytes, Carrier]:
        rows = self._db.execute("SELECT digest, epoch, seq, verdict, checksum FROM catalogues")
        return {
            digest: Carrier(digest, epoch, seq, None if verdict is None else Verdict(verdict), checksum)
            for digest, epoch, seq, verdict, checksum in rows
        }

    def keep(self, carrier: Carrier) -> None:
        """Store a catalogue with its carrier.  If the catalogue is stored already, its row is replaced."""
        self._db.execute(
            "INSERT OR REPLACE INTO catalogues VALUES (?, ?, ?, ?, ?)",
            (carrier.digest, carrier.epoch, carrier.seq, carrier.verdict, carrier.checksum),
        )
        self._carriers[carrier.digest] = carrier

    def judge(self, epoch: str, sealed: Collection[Sealed], verdict: Verdict) -> None:
        """Note the receiver's verdict on the catalogues that the batches `sealed` of `epoch` carried.

        A confirmed catalogue stays confirmed, even if the receiver refuses it later.  Batches that refer to it are
        therefore not discarded.  They wait until the receiver accepts the catalogue again.
        """
        for carrier in self.all().values():
            if carrier.verdict is not Verdict.CONFIRMED and carrier.epoch == epoch and carrier.sealed in sealed:
                self.keep(replace(carrier, verdict=verdict))

    def drop(self, digest: bytes) -> None:
        """Remove a catalogue."""
        self._db.execute("DELETE FROM catalogues WHERE digest = ?", (digest,))
        self._carriers.pop(digest, None)

    def replace(self, carriers: Iterable[Carrier]) -> None:
        """Store the catalogues `carriers`, and remove all other catalogues."""
        self._db.execute("DELETE FROM catalogues")
        self._carriers.clear()
        for carrier in carriers:
            self.keep(carrier)
