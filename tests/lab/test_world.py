"""The world of the lab runs all programs together, restarts them one by one, and takes machines as parameters."""

import asyncio
import time
from pathlib import Path

import pytest

from fleet.lake.query import query
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.machine import ClockedMachine, ThisMachine
from lab.vehicle import Vehicle, collect_everything, delivered
from lab.world import World
from tests.agent.car import BUSES, vehicle

pytestmark = pytest.mark.integration
TEN_DAYS_NS = 10 * 86_400 * 10**9


async def drive(world: World) -> None:
    make_fleet(world.fleet.root, FAST_SUITE)
    enrol_vehicle(world.fleet, world.vehicle.identity)
    world.vehicle.write_campaigns(collect_everything(1_000))
    world.vehicle.buses = BUSES
    world.vehicle.write(sources=vehicle(3.0, speed=3.0), telemetry="increment_s = 0.2", spool="reserve_mb = 0")
    world.broker.start()
    world.receiver.start()
    world.agent.start()
    await world.until("something is delivered", lambda s: s["spool"]["acknowledged"] > 0, 30.0)
    world.receiver.kill()
    world.broker.kill()
    world.broker.start()
    world.receiver.start()
    await world.until("everything is delivered", delivered, 30.0)


@pytest.mark.parametrize("days", [0, 10])
def test_one_scenario_runs_on_machines_of_either_kind(tmp_path: Path, days: int) -> None:
    machine = ThisMachine()
    if days:
        machine = ClockedMachine(tmp_path / "offset")
        machine.move_clock(TEN_DAYS_NS)
    with World(tmp_path, vehicle_machine=machine) as world:
        asyncio.run(drive(world))
        assert world.agent.stop() == 0
        assert world.receiver.stop() == 0
    samples, started_s = query(
        str(world.fleet.lake),
        "SELECT (SELECT count(*) FROM samples), (SELECT epoch(min(time)) FROM events WHERE kind = 'agent_started')",
    )
    assert samples[0].as_py() > 1_000
    assert round((started_s[0].as_py() - time.time()) / 86_400) == days
    assert not any(one.running for one in (world.agent, world.receiver))
    assert world.broker.pid is None


def test_the_settings_of_a_vehicle_are_written_in_one_place(tmp_path: Path) -> None:
    car = Vehicle(tmp_path / "car", broker_port=1, serve_port=2, sources="[[sources]]", log='level = "debug"')
    text = car.write(uplink="").read_text()
    assert '[uplink]\nbroker = "localhost:1"\n' in text
    assert "[serve]\nport = 2\n" in text
    assert '[log]\nformat = "json"\nlevel = "debug"\n' in text
    assert car.write(serve_port=3).read_text() == text.replace("port = 2", "port = 3")
