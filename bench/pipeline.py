"""Measures the whole pipeline, from frames in memory to sealed batches that are durable in the spool.

The agent's own code decodes, collects, encodes, compresses, signs, seals and stores one window at a time.  The
measurement begins after a first run, so that it describes an agent that has been running for a while.  The receiver has
already confirmed the catalogue, which a vehicle sends once for each revision of a campaign.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from agent.formats.down.campaign import parse_campaign
from agent.formats.topics import Lane
from agent.formats.up.acks import Sealed
from agent.formats.up.catalogue import catalogue_of
from agent.formats.up.columns import Window
from agent.formats.up.decode import decode_window
from agent.formats.up.encode import encode_fragments
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES, unseal
from agent.telemetry.clock import MachineClock
from agent.telemetry.collect.campaign import CampaignCollector
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.references import Description
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.spool import Spool
from bench.columns import Columns, key
from bench.drives import Drive
from can_dbc.frames import FrameBlock
from can_dbc.values import physical

VEHICLE: Final = "00000000-0000-4000-8000-000000000000"
BATCH_BYTES: Final = 60_000  # the default in the settings
EVERYTHING: Final = parse_campaign(
    {
        "name": "everything",
        "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": 30_000}},
        "signalsToCollect": [{"name": "*"}],
    },
    "bench",
)


class Pipeline:
    """Runs the windows of a drive through the agent's code, into a spool in `folder`."""

    def __init__(self, drive: Drive, windows: Sequence[FrameBlock], folder: Path) -> None:
        self._windows = windows
        buses = drive.block.buses
        self._tables = SignalTables(buses, {buses[number]: plan for number, plan in drive.plans.items()})
        self._collector = CampaignCollector(EVERYTHING, self._tables)
        self._decoder = self._tables.decoder(self._collector.wants)
        self._device, self._recipient = ec.generate_private_key(ec.SECP256R1()), RecipientPrivateKey.generate()
        self._clock = MachineClock(recorded=True)
        self._spool = Spool(folder, Limits.of(10**9, 1e6, 0))
        self._outbox = Outbox(
            self._spool,
            Sealer(VEHICLE, self._device, self._recipient.public, lambda: time.time_ns() // 1_000),
            self._clock.read,
            batch_max_bytes=BATCH_BYTES,
            pending_max_bytes=10**8,
            refer=True,
        )
        signals = self._collector.described
        description = Description(EVERYTHING.name, EVERYTHING.revision, signals)
        self._catalogue = catalogue_of(description.campaign, description.revision, signals)
        self._outbox.describe([description])
        (carrier,) = self._spool.reader.pending(2, exclude=(), lanes=(Lane.EVENTS,))
        self.catalogue_bytes = carrier.size_bytes
        self._spool.reader.acknowledge(carrier.epoch, [carrier.sealed])
        self.forget_times()

    def run(self) -> None:
        """Run all windows until the last batch is durable, and add up the times."""
        clock = time.perf_counter
        busy_s = time.process_time()
        for block in self._windows:
            started = clock()
            decoded_columns = self._decoder.decode(block).columns
            decoded = clock()
            self._collector.take_blocks(self._tables.blocks(decoded_columns))
            window = self._close(block)
            collected = clock()
            self._outbox.put([(window, 1)])
            stored = clock()
            self._stages_s["decode"] += decoded - started
            self._stages_s["collect"] += collected - decoded
            self._stages_s["codec to disk"] += stored - collected
        self._busy_s += time.process_time() - busy_s
        self._runs += 1

    def windows(self) -> list[Window]:
        """Return the collected samples of each window, without storing them."""
        found = []
        for block in self._windows:
            self._collector.take_blocks(self._tables.blocks(self._decoder.decode(block).columns))
            found.append(self._close(block))
        return found

    def sizes(self) -> tuple[int, int, int]:
        """Return the number of samples, the bytes of all bodies (zstd), and the bytes of all sealed batches."""
        samples = sum(window.samples for window in self.windows())
        self.empty()
        self.run()
        return samples, sum(map(len, self.bodies())), self._spool.counts().size_bytes

    def bodies(self) -> list[bytes]:
        """Return the encoded body of each batch, before it is signed and sealed."""
        limit = BATCH_BYTES - SEAL_OVERHEAD_BYTES
        return [body for window in self.windows() for _, body in encode_fragments(window, limit, self._catalogue)]

    def columns(self) -> Columns:
        """Empty the spool, run all windows once, and return the values that a receiver reads from the batches."""
        self.empty()
        self.run()
        parts: dict[tuple[str, str, str], list[NDArray[np.float64]]] = {}
        for entry in sorted(self._entries(), key=lambda entry: entry.seq):
            content = self._spool.reader.read(entry)
            assert content is not None
            _, body = unseal(content, self._recipient, self._device.public_key())
            for group in decode_window(body, {self._catalogue.digest: self._catalogue}.get).groups:
                for info, raw in zip(group.signals, group.raw, strict=True):
                    message, _, signal = info.name.partition(".")
                    name = key(info.bus, message, signal, group.source_address)
                    parts.setdefault(name, []).append(physical(info, raw))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def stages(self) -> Mapping[str, float]:
        """Return the mean milliseconds of a run, by stage."""
        return {name: seconds / self._runs * 1e3 for name, seconds in self._stages_s.items()}

    @property
    def cpu_s(self) -> float:
        """Return the mean CPU time of a run in seconds."""
        return self._busy_s / self._runs

    def forget_times(self) -> None:
        """Forget all times, so that only later runs count."""
        self._stages_s: defaultdict[str, float] = defaultdict(float)
        self._busy_s = 0.0
        self._runs = 0

    def empty(self) -> None:
        """Acknowledge all batches in the spool, which removes them."""
        by_epoch: dict[str, list[Sealed]] = {}
        for entry in self._entries():
            by_epoch.setdefault(entry.epoch, []).append(entry.sealed)
        for epoch, sealed in by_epoch.items():
            self._spool.reader.acknowledge(epoch, sealed)

    def close(self) -> None:
        """Close the spool."""
        self._spool.close()

    def _entries(self) -> list[Entry]:
        return self._spool.reader.pending(10**6, exclude=(), lanes=(Lane.LIVE,))

    def _close(self, block: FrameBlock) -> Window:
        start_us, end_us = int(block.t_ns[0]) // 1_000, int(block.t_ns[-1]) // 1_000 + 1
        return self._collector.close(start_us=start_us, end_us=end_us, clock=self._clock.read())
