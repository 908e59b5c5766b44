"""Measures what the spool costs as its backlog grows, and how fast it drains compared with mosquitto's client.

Appends and acknowledgements are measured in turns over spools of all sizes, so that other load on the machine affects
all sizes alike.  The backlog is filled without syncing each file to the disk, which only shortens the filling.

The drain runs the agent's uplink until the spool is empty.  The settings are MQTT 5 over mutual TLS, QoS 1, the default
number of messages in flight, no rate limit, and `ack = "broker"`.  Each batch is read, checked, and durably
forgotten.

Between the two halves of the drain, `mosquitto_pub -l -q 1` publishes the whole backlog over the same broker, with one
process, one connection and one line per message.  A line cannot hold line ends or zero bytes, so these bytes of the
sealed batches are replaced.  The number and the sizes of the messages stay the same.  A subscriber listens at the
broker in both cases.

The uplink removes the files of delivered batches only when the link is idle.  mosquitto's client removes no files.
Only `drain_removed_ratio_mosquitto` includes the removal.
"""

import asyncio
import contextlib
import gc
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.acks import Sealed
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.seal import digest_of
from agent.link.endpoint import Endpoint
from agent.link.mqtt import connect
from agent.runtime.limits import UNCONFIRMED_BYTES
from agent.settings.sections import UplinkSettings
from agent.system.durable import Disk
from agent.system.memory import freeze_lasting_objects
from agent.telemetry.clock import MachineClock
from agent.telemetry.spool.batch import BatchId, SealedBatch
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.spool import Spool
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.link_policy import LinkPolicy
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.standing import Route, Standing
from agent.telemetry.uplink.uplink import Uplink
from fleet.admin.create import create_fleet
from fleet.receiving.receiver import endpoint_of
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from lab.simulate.enrolment import enrol_many

BACKLOGS: Final = (0, 1_000, 10_000, 100_000)
TURNS: Final = 60
BATCH_BYTES: Final = 2_000  # size of a batch in `costs`
DRAIN_BATCH_BYTES: Final = 55_000  # size of a batch in `drain`, near the default of 60,000 in the settings
AGE_S: Final = 86_400.0  # age of the drained batches, so that all of them count as backlog
_AT_ONCE: Final = 500


class _QuickDisk(Disk):
    """A disk that does not sync files, to fill a backlog quickly."""

    def create_file(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)


def costs(folder: Path, backlogs: tuple[int, ...] = BACKLOGS) -> dict[str, Any]:
    """Return the median milliseconds of one append and of one acknowledgement for each backlog.

    The result also holds the ratio of the last backlog to the first.
    """
    for backlog in backlogs:
        _fill(folder / str(backlog), backlog, BATCH_BYTES)
    appends: dict[int, list[float]] = {backlog: [] for backlog in backlogs}
    acknowledged: dict[int, list[float]] = {backlog: [] for backlog in backlogs}
    with contextlib.ExitStack() as stack:
        spools = {backlog: _open(folder / str(backlog)) for backlog in backlogs}
        for spool in spools.values():
            stack.callback(spool.close)
        epochs = {backlog: spool.epoch for backlog, spool in spools.items()}
        content = secrets.token_bytes(BATCH_BYTES)
        for turn in range(TURNS + 1):
            for backlog, spool in spools.items():
                started = time.perf_counter()
                (id_,) = spool.writer.next_ids(1)
                spool.writer.append([_batch(id_, content)], token=str(turn + 1))
                appended = time.perf_counter()
                spool.reader.acknowledge(epochs[backlog], [Sealed(id_.seq, digest_of(content))])
                done = time.perf_counter()
                if turn:  # The first turn is not counted, because it fills caches.
                    appends[backlog].append((appended - started) * 1e3)
                    acknowledged[backlog].append((done - appended) * 1e3)
    append_ms = {backlog: statistics.median(times) for backlog, times in appends.items()}
    acknowledge_ms = {backlog: statistics.median(times) for backlog, times in acknowledged.items()}
    first, last = backlogs[0], backlogs[-1]
    return {
        "append_ms_by_backlog": append_ms,
        "acknowledge_ms_by_backlog": acknowledge_ms,
        "append_ratio_backlog": append_ms[last] / append_ms[first],
        "acknowledge_ratio_backlog": acknowledge_ms[last] / acknowledge_ms[first],
    }


def drain(folder: Path, backlog_mb: int) -> dict[str, Any]:
    """Return the megabytes per second of the uplink and of mosquitto's client, with their ratios."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = max(2, backlog_mb * 1_000_000 // DRAIN_BATCH_BYTES)
    size_mb = batches * DRAIN_BATCH_BYTES / 1e6
    _fill(folder / "spool", batches, DRAIN_BATCH_BYTES, age_s=AGE_S)
    _write_lines(folder / "spool", folder / "lines")
    os.sync()  # Otherwise the first transaction waits until the disk has stored everything.
    with _vehicle(folder) as (endpoint, topic), contextlib.closing(_open(folder / "spool")) as spool:
        freeze_lasting_objects()  # as in a running agent
        halves = [_deliver(spool, endpoint, left=batches // 2)]
        started = time.perf_counter()
        _publish(folder / "lines", endpoint, topic)
        theirs_s = time.perf_counter() - started
        halves.append(_deliver(spool, endpoint, left=0))
    gc.unfreeze()
    delivered_s, removed_s = (sum(times) for times in zip(*halves, strict=True))
    return {
        "drain_backlog_mb": size_mb,
        "drain_batches": batches,
        "drain_mb_per_s": size_mb / delivered_s,
        "drain_mosquitto_mb_per_s": size_mb / theirs_s,
        "drain_ratio_mosquitto": theirs_s / delivered_s,
        "drain_removed_ratio_mosquitto": theirs_s / removed_s,
    }


def _open(folder: Path, *, clock: Callable[[], Clock] | None = None, disk: Disk | None = None) -> Spool:
    return Spool(folder, Limits.of(10**11, 1e9, 0), clock=clock, disk=disk)


def _batch(id_: BatchId, content: bytes) -> SealedBatch:
    return SealedBatch(id_, Lane.LIVE, 1, content, "bench", 100, 1, 2)


def _fill(folder: Path, batches: int, size: int, *, age_s: float = 0.0) -> None:
    """Make a spool of `batches` random batches of `size` bytes, stored `age_s` seconds ago."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stored_us = round((time.time() - age_s) * 1e6)
    clock = Clock(ClockQuality.NETWORK, "an earlier boot", stored_us, 1_000_000)
    spool = _open(folder, disk=_QuickDisk(), clock=lambda: clock)
    for start in range(0, batches, _AT_ONCE):
        ids = spool.writer.next_ids(min(_AT_ONCE, batches - start))
        spool.writer.append([_batch(id_, secrets.token_bytes(size)) for id_ in ids], token=f"fill {start}")
    spool.close()


@contextlib.contextmanager
def _vehicle(folder: Path) -> Iterator[tuple[Endpoint, str]]:
    """Run a broker with a subscriber, and yield the endpoint of a vehicle and the topic that it may publish on."""
    fleet = FleetFolder(folder / "fleet")
    create_fleet(fleet, suite="X25519", broker_names=(), now=datetime.now(UTC))
    keys = folder / "keys"
    keys.mkdir()
    with Broker(fleet, folder / "broker") as broker:
        ((record, _, endpoint),) = enrol_many(fleet, keys, 1, host="localhost", port=broker.port, now=datetime.now(UTC))
        receiver = endpoint_of(fleet, broker.host, broker.fleet_port, Share())
        command = ["mosquitto_sub", *_tls(receiver)]
        listener = subprocess.Popen(
            [*command, "-i", "listener", "-t", f"{topics.ROOT}/up/#"], stdout=subprocess.DEVNULL
        )
        time.sleep(1.0)
        try:
            yield endpoint, topics.up(record.partition, record.vehicle, Lane.LIVE)
        finally:
            listener.terminate()
            listener.wait()


def _tls(endpoint: Endpoint) -> list[str]:
    address = ["-h", endpoint.host, "-p", str(endpoint.port), "-V", "mqttv5"]
    return [
        *address,
        "--cafile",
        str(endpoint.ca_file),
        "--cert",
        str(endpoint.cert_file),
        "--key",
        str(endpoint.key_file),
    ]


def _write_lines(spool_folder: Path, lines: Path) -> None:
    with lines.open("wb") as output:
        for file in sorted((spool_folder / "batches").rglob("*.batch")):
            output.write(file.read_bytes().translate(bytes.maketrans(b"\n\0", b"..")) + b"\n")


def _publish(lines: Path, endpoint: Endpoint, topic: str) -> None:
    command = ["mosquitto_pub", *_tls(endpoint)]
    with lines.open("rb") as stream:
        subprocess.run([*command, "-i", endpoint.client_id, "-q", "1", "-l", "-t", topic], stdin=stream, check=True)


def _uplink(spool: Spool, endpoint: Endpoint) -> Uplink:
    defaults = UplinkSettings(broker="localhost:1")
    vehicle, acks_key = endpoint.client_id, Ed25519PrivateKey.generate().public_key()
    file = endpoint.ca_file.parent / "metered.json"
    return Uplink(
        Standing(
            spool.reader,
            Route(vehicle, topics.partition_of(vehicle), acks_key, ack="broker"),
            Pace(defaults.in_flight, defaults.ack_timeout_s, UNCONFIRMED_BYTES["standard"]),
            LinkGate(LinkPolicy(frozenset(Lane), 0), file, MachineClock().read, metered=False),
        )
    )


def _deliver(spool: Spool, endpoint: Endpoint, *, left: int) -> tuple[float, float]:
    """Deliver batches until at most `left` are in the spool, then remove the files of the delivered batches.

    Return the seconds until the batches were delivered, and the seconds until the files were removed too.
    """
    started = time.perf_counter()
    delivered = asyncio.run(_drain(spool, endpoint, left))
    spool.reader.sweep()
    return delivered - started, time.perf_counter() - started


async def _drain(spool: Spool, endpoint: Endpoint, left: int) -> float:
    """Deliver batches until at most `left` are in the spool, and return the `time.perf_counter` of that moment."""
    uplink = _uplink(spool, endpoint)
    async with connect(endpoint) as connection:
        running = asyncio.create_task(uplink.run(connection))
        while await asyncio.to_thread(lambda: spool.counts().batches) > left:
            if running.done():
                running.result()
            await asyncio.sleep(0.02)
        delivered = time.perf_counter()
        running.cancel()
        await asyncio.wait({running})
    return delivered


def measure(backlog_mb: int, out: Path) -> dict[str, Any]:
    """Measure the costs and the drain in a temporary folder below `out`, and return all figures."""
    with tempfile.TemporaryDirectory(dir=out, prefix="bench-backlog-") as name:
        return costs(Path(name) / "costs") | drain(Path(name) / "drain", backlog_mb)
