"""Measures how fast the receiver judges, opens and decodes the sealed batches of a drive, and commits their samples.

The measurement covers everything from the envelope to the durable commit in Delta tables and the signed
acknowledgement, except MQTT.  Eight vehicles send every signal at its native rate in windows of 30 s, grouped as the
receiver groups them.
"""

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.encode import encode_fragments
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES, Header, seal
from bench.drives import Drive
from bench.pipeline import BATCH_BYTES, Pipeline
from fleet.admin.create import create_fleet
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_recipient
from lab.simulate.enrolment import enrol_many

VEHICLES: Final = 8
EPOCH: Final = "0" * 32


def measure(drive: Drive, out: Path) -> dict[str, Any]:
    """Return samples per second, and CPU seconds per million samples.

    The lake lies in a temporary folder below `out`.

    Raises: RuntimeError if the receiver does not store all samples.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix="bench-receiver-") as name:
        folder = Path(name)
        fleet = FleetFolder(folder / "fleet")
        create_fleet(fleet, suite="MLKEM768_X25519", broker_names=(), now=datetime.now(UTC))
        groups, samples = _groups(drive, fleet, folder)
        store = open_store(fleet, Share())
        wall_s, cpu_s = -time.perf_counter(), -time.process_time()
        for group in groups:
            rest = group
            while rest:
                rest = rest[store.take_in(rest) :]
                store.land()
        wall_s, cpu_s = wall_s + time.perf_counter(), cpu_s + time.process_time()
        taken = store.totals
        store.close()
    if (taken.samples, taken.refused) != (samples, 0):
        raise RuntimeError(f"the receiver stored {taken.samples} of {samples} samples; see its log for refused batches")
    return {
        "receiver_samples": samples,
        "receiver_batches": taken.batches,
        "receiver_samples_per_s": samples / wall_s,
        "receiver_cpu_s_per_million_samples": cpu_s / samples * 1e6,
    }


def _groups(drive: Drive, fleet: FleetFolder, folder: Path) -> tuple[list[list[Message]], int]:
    """Return a group for each window, with its batches from all vehicles, and the number of samples in all groups."""
    pipeline = Pipeline(drive, drive.windows(30), folder / "spool")
    windows = pipeline.windows()
    pipeline.close()
    recipient = read_recipient(fleet).public
    keys = folder / "keys"
    keys.mkdir()
    vehicles = enrol_many(fleet, keys, VEHICLES, host="localhost", port=1, now=datetime.now(UTC))
    groups: list[list[Message]] = []
    seq = 0
    for window in windows:
        group = []
        for _, body in encode_fragments(window, BATCH_BYTES - SEAL_OVERHEAD_BYTES):
            seq += 1
            for record, key, _ in vehicles:
                header = Header(record.vehicle, EPOCH, seq, Lane.LIVE, recipient.key_id, recipient.suite, window.end_us)
                topic = topics.up(record.partition, record.vehicle, Lane.LIVE)
                group.append(Message(topic, seal(header, body, key, recipient)))
        groups.append(group)
    return groups, int(np.sum([window.samples for window in windows])) * VEHICLES
