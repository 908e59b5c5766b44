"""An outbox over a real spool on a disk that can be filled, for tests; everything in it can be opened again."""

import errno
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.codec import decode_window
from agent.formats.up.columns import Event, Window
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import unseal
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.outbox import Outbox, Sealer
from agent.telemetry.spool.files import DiskFiles
from agent.telemetry.spool.spool import Entry, Spool
from tests.agent.formats.up.windows import CLOCK

VEHICLE = "0f8fad5b-d9cb-469f-a165-70867728950e"
DEVICE = ec.generate_private_key(ec.SECP256R1())
FLEET = RecipientPrivateKey.generate("X25519")
LANES = (Lane.LIVE, Lane.EVENTS)


@dataclass
class TestDisk(DiskFiles):
    """Full where `full`; hangs until `free` is set."""

    __test__ = False
    full: bool = False
    free: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.free.set()

    def write(self, path: Path, content: bytes) -> None:
        assert self.free.wait(10)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(path, content)


class LedgerRefuses(Spool):
    """A spool whose ledger can be out of reach while its files are not."""

    ledger_refuses = False

    def record_losses(self, losses: "object") -> None:
        if self.ledger_refuses:
            raise Transient("the index is out of reach")
        super().record_losses(losses)  # type: ignore[arg-type]


class Depot:
    def __init__(
        self, folder: Path, *, batch_max_bytes: int = 60_000, pending_max_bytes: int = 8_000_000, parts_max: int = 100
    ) -> None:
        self.disk = TestDisk()
        spool = LedgerRefuses.open(
            folder, quota_bytes=50_000_000, max_age_s=1e9, reserve_bytes=0, now_s=lambda: 1_000.0, files=self.disk
        )
        assert isinstance(spool, LedgerRefuses)
        self.spool = spool
        sealer = Sealer(VEHICLE, DEVICE, FLEET.public, lambda: 1_000_000)
        self.outbox = Outbox(
            spool,
            sealer,
            lambda: CLOCK,
            batch_max_bytes=batch_max_bytes,
            pending_max_bytes=pending_max_bytes,
            parts_max=parts_max,
        )

    def entries(self) -> list[Entry]:
        """What is to be sent, in order."""
        return sorted(self.spool.pending(100_000, exclude=(), lanes=LANES), key=lambda entry: entry.seq)

    def windows(self) -> list[Window]:
        """What is stored, in order."""
        contents = [self.spool.read(entry) for entry in self.entries()]
        return [decode_window(unseal(content, FLEET, DEVICE.public_key())[1]) for content in contents if content]

    def events(self, kind: str | None = None) -> list[Event]:
        return [event for window in self.windows() for event in window.events if kind in (None, event.kind)]

    def lost(self) -> dict[str, int]:
        """Samples by reason."""
        return {str(reason): total.samples for reason, total in self.spool.counts().lost.items()}

    def recorded(self) -> list[Loss]:
        return [loss for _, loss in self.spool.unreported_losses(1_000)]
