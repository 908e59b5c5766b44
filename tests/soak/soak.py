"""Runs agent, broker and receiver for a long time with a steady load, and watches the memory of agent and receiver.

The load is a recorded drive that begins again and again, with fresh times.  A campaign collects every sample, and the
lake is compacted every few minutes.  At the end, the lake must hold each lap of the drive exactly once.  cantools says
how many samples one lap has.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import zstandard

from agent.errors import Permanent, ungrouped
from bench.process_costs import memory_kb
from fleet.lake.query import ask_sql
from lab.demo.oracle import expected_samples, read_log
from lab.fleet import enrol_vehicle, make_fleet
from lab.folder import fresh
from lab.vehicle import collect_everything, delivered
from lab.world import World
from tests.shared_data import DATA

CAPTURE: Final = DATA / "open" / "can" / "ford_mustang_s550.log.zst"
DATABASE: Final = DATA / "open" / "dbc" / "ford_lincoln_base_pt.dbc"
PERIOD_MS: Final = 3_000
LOOK_S: Final = 5.0
COMPACT_S: Final = 600.0
"""The time between two runs of `fleet compact`.  An open table has the names of all its files in memory, so a lake that
is never compacted makes the receiver grow."""

WARM_S: Final = 300.0
"""Caches fill and allocators settle in this time.  Growth is measured after it, or after the first half of a soak that
is shorter than twice this time."""

DRAIN_S: Final = 300.0
GROWTH_MB_PER_HOUR: Final = 25.0
"""A program that grows by more than this would need a restart within weeks, with the memory of a head unit."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The memory of one program at one moment: all resident memory, and the part that is no file (anonymous)."""

    at_s: float
    resident_mb: float
    anonymous_mb: float


@dataclass(frozen=True, slots=True)
class Memory:
    """How the memory of one program went.  Growth is the slope of a straight line through the readings."""

    first_mb: float
    last_mb: float
    peak_mb: float
    growth_mb_per_hour: float

    @classmethod
    def of(cls, readings: Sequence[Reading], warm_s: float) -> "Memory":
        """Judge the readings of one program.  Raises: Permanent if fewer than two are left after `warm_s`."""
        settled = [reading for reading in readings if reading.at_s >= warm_s]
        if len(settled) < 2:
            raise Permanent("The soak was too short to see growth. Choose more minutes.")
        return cls(
            settled[0].resident_mb,
            settled[-1].resident_mb,
            max(reading.resident_mb for reading in readings),
            round(_slope([reading.at_s for reading in settled], [r.resident_mb for r in settled]) * 3_600, 2),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a soak, which is the content of build/soak.json."""

    minutes: float
    laps: int
    samples_expected: int
    samples_in_lake: int
    laps_differing: int
    memory: dict[str, Memory]
    readings: dict[str, list[Reading]]

    @property
    def passed(self) -> bool:
        """Return whether every lap is in the lake exactly once, and no program grows."""
        flat = all(memory.growth_mb_per_hour <= GROWTH_MB_PER_HOUR for memory in self.memory.values())
        return flat and not self.laps_differing and self.samples_in_lake == self.samples_expected > 0

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


def write_laps(log: Path, lap: Path, laps: int) -> float:
    """Write the drive `laps` times to `log`, beginning now, and the first lap to `lap`.

    Return the length of a lap in seconds.
    """
    frames = []
    with zstandard.open(CAPTURE, "rt") as capture:
        for line in capture:
            stamp, bus, frame = line.split()
            frames.append((round(float(stamp[1:-1]) * 1e6), bus, frame))
    first_us = frames[0][0]
    lap_us = max(t_us for t_us, _, _ in frames) - first_us + 1_000_000
    start_us = time.time_ns() // 1_000
    with log.open("w") as output, lap.open("w") as single:
        for number in range(laps):
            for t_us, bus, frame in frames:
                now_us = start_us + number * lap_us + t_us - first_us
                line = f"({now_us // 1_000_000}.{now_us % 1_000_000:06d}) {bus} {frame}\n"
                output.write(line)
                if number == 0:
                    single.write(line)
    return lap_us / 1e6


def soak(minutes: float, folder: Path) -> Result:
    """Run the soak in `folder`, which is emptied first.  Raises: AgentError if a program fails."""
    fresh(folder)
    log, lap = folder / "drive.log", folder / "lap.log"
    lap_s = write_laps(log, lap, 1)
    laps = max(1, round(minutes * 60 / lap_s))
    write_laps(log, lap, laps)
    campaign = collect_everything(PERIOD_MS)
    expected = len(expected_samples(read_log(lap), {"can0": (DATABASE,)}, "exact", [({}, (campaign,))]))
    print(f"{laps} laps of {lap_s:.0f} s, each with {expected:,} samples", file=sys.stderr, flush=True)
    with World(folder) as world:
        make_fleet(world.fleet.root)
        enrol_vehicle(world.fleet, world.vehicle.identity)
        world.vehicle.write_campaigns(campaign)
        world.vehicle.buses = f"[bus.can0]\ndbc = {json.dumps([str(DATABASE)])}"
        world.vehicle.write(sources=f'[[sources]]\nkind = "replay"\nlog = "{log}"\nchannels = ["can0"]\nspeed = 1.0\n')
        world.broker.start()
        world.receiver.start()
        world.agent.start()
        with ungrouped():
            readings = asyncio.run(_watch(world, laps * lap_s))
        counts = _laps_in(world, log, laps, lap_s)
    warm_s = min(WARM_S, minutes * 30)
    return Result(
        minutes=minutes,
        laps=laps,
        samples_expected=laps * expected,
        samples_in_lake=sum(counts.values()),
        laps_differing=sum(counts.get(number, 0) != expected for number in range(laps)),
        memory={name: Memory.of(each, warm_s) for name, each in readings.items()},
        readings=readings,
    )


async def _watch(world: World, seconds: float) -> dict[str, list[Reading]]:
    """Read the memory of both programs until the drive is over and delivered."""
    readings: dict[str, list[Reading]] = {"agent": [], "receiver": []}
    started_s = time.monotonic()
    printed_s = compacted_s = 0.0
    while (passed_s := time.monotonic() - started_s) < seconds:
        await asyncio.sleep(LOOK_S)
        for process in (world.agent, world.receiver):
            process.check_alive()
            resident, anonymous = (memory_kb(process.pid, key) / 1_000 for key in ("VmRSS:", "RssAnon:"))
            readings[process.name].append(Reading(round(passed_s, 1), round(resident, 1), round(anonymous, 1)))
        if passed_s - compacted_s >= COMPACT_S:
            compacted_s = passed_s
            await world.fleet_command("compact")
        if passed_s - printed_s >= 60:
            printed_s = passed_s
            now = ", ".join(f"{name} {each[-1].resident_mb:.0f} MB" for name, each in readings.items())
            print(f"{passed_s:5.0f} s of {seconds:.0f}: {now}", file=sys.stderr, flush=True)
    await world.until("everything is delivered", delivered, DRAIN_S)
    return readings


def _laps_in(world: World, log: Path, laps: int, lap_s: float) -> dict[int, int]:
    """Return how many samples of each lap the lake has."""
    with log.open() as lines:
        first_us = round(float(lines.readline().split()[0][1:-1]) * 1e6)
    # Half a second lies between two laps on each side, so a lap's number is a whole division.
    lap_us = round(lap_s * 1e6)
    rows = ask_sql(
        str(world.fleet.lake),
        f"SELECT (epoch_us(time) - {first_us - 500_000}) // {lap_us}, count(*) FROM samples GROUP BY 1",
    ).rows
    return {int(str(number)): int(str(count)) for number, count in rows}


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the straight line with the smallest squared distances to the points."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
