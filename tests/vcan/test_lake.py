"""A capture that canplayer plays on virtual CAN reaches the lake, through the packet ring of a running agent.

The samples in the lake equal those that cantools decodes from candump's log of the same interfaces.
"""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import zstandard
from deltalake import DeltaTable

from lab import can_interfaces
from lab.demo.compare import compare
from lab.demo.oracle import Frame, expected_samples, read_log
from lab.vehicle import Vehicle, collect_everything, nothing_waits
from lab.world import World
from tests import shared_data
from tests.vcan import PATIENCE_S
from tests.vcan.test_capture import EVERY, QUICK

CAPTURES = [
    capture
    for capture in shared_data.captures()
    if capture.databases and (EVERY or capture.path.name.startswith(QUICK))
]
FRAMES_PER_S = 4_000
PART_FRAMES = 5_000
BUS = """
[[sources]]
kind = "packet_ring"
bus = "{bus}"
interface = "{bus}"
"""
DATABASES = """
[bus.{bus}]
dbc = {dbc}
match = "{match}"
"""
EVERYTHING = collect_everything(3_000)


@pytest.mark.shared
@pytest.mark.timeout(3 * PATIENCE_S)
@pytest.mark.parametrize("capture", CAPTURES, ids=str)
def test_what_canplayer_plays_reaches_the_lake_as_cantools_decodes_it(
    capture: shared_data.Capture, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    played, dumped = tmp_path / "played.log", tmp_path / "dumped.log"
    _hurry(zstandard.ZstdDecompressor().stream_reader(capture.path.read_bytes()).read().decode(), played)
    buses = sorted({frame.bus for frame in read_log(played)})
    with can_interfaces.vcan(*buses), World(tmp_path) as world:
        asyncio.run(_drive(world, capture, played, dumped, buses))
    lake = DeltaTable(str(world.fleet.lake / "samples")).to_pyarrow_dataset()
    frames = sorted(read_log(dumped), key=lambda frame: frame.t_ns)
    total = 0
    for part in _parts(frames):
        expected = expected_samples(part, capture.databases, capture.match, [({}, [EVERYTHING])])
        found = compare(expected, lake.to_table(filter=_between(part[0].t_ns, part[-1].t_ns)))
        assert found.equal, found
        total += found.expected
    record_property(str(capture), f"{len(frames)} frames, {total} samples, all of them in the lake and no other")
    assert len(frames) == capture.frames
    assert total == lake.count_rows() > 1_000


def _parts(frames: list[Frame]) -> Iterator[list[Frame]]:
    """Yield the frames in parts, because a process under User Mode Linux has only some 200 MB of memory.

    Frames with equal times stay together.  The campaign keeps every sample, so no part depends on an earlier one.
    """
    start = 0
    while start < len(frames):
        end = min(start + PART_FRAMES, len(frames))
        while end < len(frames) and frames[end].t_ns == frames[end - 1].t_ns:
            end += 1
        yield frames[start:end]
        start = end


def _between(first_ns: int, last_ns: int) -> ds.Expression:
    first, last = (pa.scalar(t_ns // 1_000, pa.timestamp("us", "UTC")) for t_ns in (first_ns, last_ns))
    return (ds.field("time") >= first) & (ds.field("time") <= last)


async def _drive(world: World, capture: shared_data.Capture, played: Path, dumped: Path, buses: list[str]) -> None:
    await world.fleet_command("init")
    await world.fleet_command("enrol", "--out", str(world.vehicle.identity))
    world.broker.start()
    world.receiver.start()
    _configure(world.vehicle, capture, buses)
    world.agent.start()
    await world.until("the agent is online", lambda s: s["link"]["state"] == "online", PATIENCE_S)
    with _candump(dumped, buses):
        await asyncio.to_thread(can_interfaces.canplayer(played, buses, timed=True).wait)
        await world.until(
            "all is captured", lambda s: sum(s["telemetry"]["frames"].values()) == capture.frames, PATIENCE_S
        )
    assert await asyncio.to_thread(world.agent.stop) == 0  # this closes the windows
    world.agent.start()
    await world.until("every batch is acknowledged", _delivered, PATIENCE_S)


def _hurry(log: str, played: Path) -> None:
    """Write the log, and compress its times if it has fewer than FRAMES_PER_S frames a second."""
    rows = [(float(line[1 : line.index(")")]), line[line.index(")") :]) for line in log.splitlines()]
    first = rows[0][0]
    scale = min(1.0, len(rows) / FRAMES_PER_S / (rows[-1][0] - first))
    played.write_text("".join(f"({first + (time_s - first) * scale:.6f}{rest}\n" for time_s, rest in rows))


def _configure(vehicle: Vehicle, capture: shared_data.Capture, buses: list[str]) -> None:
    vehicle.write_campaigns(EVERYTHING)
    vehicle.buses = "".join(
        DATABASES.format(bus=bus, dbc=json.dumps([str(file) for file in files]), match=capture.match)
        for bus, files in capture.databases.items()
    )
    sources = "".join(BUS.format(bus=bus) for bus in buses)
    vehicle.write(sources=sources, telemetry="increment_s = 1.0", uplink="")


@contextmanager
def _candump(log: Path, buses: list[str]) -> Iterator[None]:
    """Log the same frames with candump, with the kernel's times, during a `with` block."""
    with log.open("wb") as file:
        process = subprocess.Popen(["candump", "-r", "200000000", "-L", *buses], stdout=file)
        time.sleep(0.5)
        try:
            yield
            before = -1
            while before != (before := log.stat().st_size):  # candump reads what its socket still holds
                time.sleep(1)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _delivered(status: Mapping[str, Any]) -> bool:
    return status["link"]["state"] == "online" and nothing_waits(status)
