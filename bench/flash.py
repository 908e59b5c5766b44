"""Measures how much the agent writes to flash for a drive in windows of 30 s, without and with checkpoints every 5 s.

The kernel counts the bytes for the process (/proc/self/io).  The count includes the spool's index with its log, but not
the file system's own journal.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from agent.formats.topics import Lane
from agent.formats.up.recipient import RecipientPrivateKey
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.collector import Collector, Limits
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import SealedBatch
from agent.telemetry.spool.retention import Limits as SpoolLimits
from agent.telemetry.spool.spool import Spool
from bench.drives import Drive
from bench.pipeline import BATCH_BYTES, EVERYTHING, VEHICLE

S: Final = 1_000_000_000
FULL_BATCHES: Final = 100


def written_bytes() -> int:
    """Return the bytes that this process has written to disks so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def full_batches(folder: Path) -> float:
    """Return the bytes written for each sealed byte, if all batches have the largest size."""
    spool = _spool(folder)
    content = bytes(BATCH_BYTES)
    before = written_bytes()
    for number in range(FULL_BATCHES):
        (id_,) = spool.writer.next_ids(1)
        spool.writer.append([SealedBatch(id_, Lane.LIVE, 1, content, "bench")], token=str(number))
    spool.close()
    return (written_bytes() - before) / (FULL_BATCHES * BATCH_BYTES)


def measure(drive: Drive, folder: Path) -> dict[str, Any]:
    """Return the flash figures of one drive; `folder` must lie on a disk, not in memory."""
    sealed, written = _collected(drive, folder / "whole", 0)
    _, checkpointed = _collected(drive, folder / "checkpoints", 5 * S)
    hours = drive.seconds / 3_600
    return {
        "write_amplification_drive": written / sealed,
        "write_amplification_checkpoints": checkpointed / sealed,
        "flash_bytes_per_hour": written / hours,
        "flash_bytes_per_hour_checkpoints": checkpointed / hours,
    }


def _spool(folder: Path) -> Spool:
    return Spool(folder, SpoolLimits.of(10**9, 1e6, 0))


def _collected(drive: Drive, folder: Path, checkpoint_ns: int) -> tuple[int, int]:
    """Collect a drive, and return the bytes of its sealed batches and the bytes written to flash."""
    spool = _spool(folder)
    device, fleet = ec.generate_private_key(ec.SECP256R1()), RecipientPrivateKey.generate()
    clock = MachineClock(recorded=True)
    sealer = Sealer(VEHICLE, device, fleet.public, lambda: time.time_ns() // 1_000)
    outbox = Outbox(spool, sealer, clock.read, batch_max_bytes=BATCH_BYTES, pending_max_bytes=10**8, refer=True)
    plans = {drive.block.buses[number]: plan for number, plan in drive.plans.items()}
    limits = Limits(5 * S, 10 * S, 100_000, 50_000_000, checkpoint_ns)
    collector = Collector(SignalTables(drive.block.buses, plans), outbox, clock, limits)

    async def collect() -> int:
        await collector.set_campaigns([EVERYTHING])
        (carrier,) = spool.reader.pending(2, exclude=(), lanes=(Lane.EVENTS,))
        spool.reader.acknowledge(carrier.epoch, [carrier.sealed])
        before = written_bytes()
        await collector.feed(drive.block)
        await collector.flush()
        return written_bytes() - before

    written = asyncio.run(collect())
    size_bytes = spool.counts().size_bytes
    spool.close()
    return size_bytes, written
