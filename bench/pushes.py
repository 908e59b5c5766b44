"""Measure what pushes cost a running agent: processor time for each, and memory over many.

    python -m bench.pushes [--pushes 1000]      writes build/pushes.json

A real agent is connected to a real mosquitto.  This program publishes one release after the other, each with toggles
and a campaign.  A real receiver acknowledges what the agent sends.  Its allowance would spread 1,000 requests of one
vehicle over hours, so this program answers the agent's requests as well, by the fleet's own code.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.formats import topics
from agent.link.mqtt import Connection, connect
from agent.system.arguments import whole
from bench.process_costs import memory_kb
from fleet.publishing import sync
from fleet.publishing.publish import Publication, publish
from fleet.receiving.receiver import endpoint_of
from fleet.receiving.share import parse_share
from fleet.state.folder import FleetFolder
from lab.fleet import enrol_vehicle, make_fleet
from lab.vehicle import collect_everything
from lab.world import World

CPU_LIMIT_S: Final = 0.3
"""What verifying an ordinary push may cost, by issue 12."""
GROWTH_LIMIT_MB: Final = 5.0
"""Python's allocator keeps some memory in reserve; a leak of 10 kB a push would be 10 MB in 1,000 pushes."""
WARM: Final = 50
"""The memory after this many pushes is compared with the memory at the end."""
DATABASES: Final = Path(__file__).parents[1] / "can_dbc" / "dbc"
SOURCE: Final = """\
[[sources]]
kind = "virtual_vehicle"
start = "2026-07-01T08:00:00+00:00"
duration_s = 0.0
speed = 1.0
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pushes", description=__doc__.split("\n")[0])
    parser.add_argument("--pushes", type=whole(2, 10**6), default=1_000, help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pushes-") as folder:
        result = asyncio.run(measure(Path(folder), options.pushes))
    Path("build").mkdir(exist_ok=True)
    Path("build/pushes.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["cpu_s_each"]["median"] <= CPU_LIMIT_S and result["growth_mb"] <= GROWTH_LIMIT_MB else 1


async def measure(folder: Path, pushes: int) -> dict[str, Any]:
    """Return the figures of `pushes` pushes to one agent."""
    with World(folder) as world:
        make_fleet(world.fleet.root)
        enrol_vehicle(world.fleet, world.vehicle.identity)
        world.vehicle.write_campaigns(collect_everything(1_000))
        world.vehicle.buses = f'[bus.can0]\ndbc = ["{DATABASES}/demo_powertrain.dbc"]'
        world.vehicle.write(sources=SOURCE)
        world.broker.start()
        world.receiver.start()
        async with answering(world) as connection:
            world.agent.start()
            await asyncio.to_thread(world.agent.until_ready)
            return await _push(world, connection, pushes)


async def _push(world: World, connection: Connection, pushes: int) -> dict[str, Any]:
    pid = world.agent.pid
    cpu_s: list[float] = []
    memory_mb: list[float] = []
    for number in range(1, pushes + 1):
        version = await asyncio.to_thread(_publish, world.fleet, world.folder, number)
        before_s = children_cpu_s(pid)
        await connection.publish(topics.NUDGE, b"")
        await _until_in_force(world, version)
        cpu_s.append(children_cpu_s(pid) - before_s)
        memory_mb.append(memory_kb(pid, "VmRSS:") / 1_000)
        if number % 50 == 0:
            print(f"{number:5,} of {pushes:,}: {memory_mb[-1]:.1f} MB", file=sys.stderr, flush=True)
    warm_mb = memory_mb[min(WARM, pushes // 2) - 1]
    return {
        "pushes": pushes,
        "cpu_s_each": {
            "median": round(statistics.median(cpu_s), 3),
            "smallest": round(min(cpu_s), 3),
            "largest": round(max(cpu_s), 3),
        },
        "cpu_limit_s": CPU_LIMIT_S,
        "memory_mb": {"warm": round(warm_mb, 1), "end": round(memory_mb[-1], 1), "peak": round(max(memory_mb), 1)},
        "growth_mb": round(memory_mb[-1] - warm_mb, 1),
        "growth_limit_mb": GROWTH_LIMIT_MB,
        "load_average": round(os.getloadavg()[0], 1),
        "processors": os.cpu_count(),
    }


@contextlib.asynccontextmanager
async def answering(world: World) -> AsyncIterator[Connection]:
    """Answer the agent's requests during a `with` block, beside the receiver."""
    bundles = sync.Bundles(world.fleet)

    async def answer(connection: Connection) -> None:
        async for topic, payload in connection.messages():
            await sync.answer(connection, topic, payload, bundles)

    endpoint = endpoint_of(world.fleet, "localhost", world.broker.fleet_port, parse_share("0-15/16"))
    async with connect(replace(endpoint, client_id="bench")) as connection:
        await connection.subscribe([topics.ALL_SYNC, topics.ALL_FETCH])
        task = asyncio.create_task(answer(connection))
        try:
            yield connection
        finally:
            task.cancel()
            await asyncio.wait({task})


def children_cpu_s(pid: int) -> float:
    """Return the processor time of the children of a process that have ended: the verifiers."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _publish(fleet: FleetFolder, folder: Path, number: int) -> int:
    toggles, campaign = folder / "toggles.json", folder / "campaign.json"
    rule = {"if": [{"==": [{"var": "market"}, "DE"]}, "on", "off"]}
    flags = {
        f"flag-{index}": {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
        | ({"targeting": rule} if index % 2 else {})
        for index in range(20)
    }
    toggles.write_text(json.dumps({"flags": flags, "metadata": {"number": number}}))
    campaign.write_text(json.dumps(collect_everything(1_000 + number, "*", "bench")))
    files = [("toggles", toggles), ("campaign", campaign)]
    return publish(fleet, Publication(files=files), now=datetime.now(UTC)).versions.targets


async def _until_in_force(world: World, version: int) -> None:
    async with asyncio.timeout(60):
        while (status := await world.status()) is None or status["pushes"]["version"] != version:
            world.agent.check_alive()
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
