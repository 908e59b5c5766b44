"""The real agent runs under the system call filter of its service, and its verifier confines itself under it."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.system.confinement import landlock_version
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.machine import ThisMachine
from lab.process import PATIENCE_S
from lab.vehicle import Agent
from lab.world import World
from tests.agent.car import BUSES, vehicle
from tests.agent.pushes.world import toggles
from tests.systemd import service_filter

pytestmark = pytest.mark.integration

UNIT = Path(__file__).parents[2] / "systemd" / "headunit-agent.service"
OUR_LINE = "SystemCallFilter=capset landlock_create_ruleset landlock_restrict_self\n"


class Service(ThisMachine):
    """This machine, on which the agent runs under the system call filter of a unit."""

    def __init__(self, unit: Path) -> None:
        self._unit = unit

    def python(self, module: str) -> list[str]:
        return [sys.executable, service_filter.__file__, str(self._unit), *super().python(module)]


def until_served(agent: Agent, value: bool) -> None:
    """Wait until the agent serves a release in which the toggle has `value`."""

    def served() -> bool:
        try:
            return agent.toggle("new-navigation") is value
        except KeyError:  # no release has this toggle yet
            return False

    agent.until(served, "using the release")


async def pushed(folder: Path, unit: Path, values: Sequence[bool]) -> str:
    """Publish toggles to a running agent, one after the other, and return its log when it serves the last one."""
    with World(folder, vehicle_machine=Service(unit)) as world:
        make_fleet(world.fleet.root, FAST_SUITE)
        enrol_vehicle(world.fleet, world.vehicle.identity)
        world.vehicle.buses = BUSES
        world.vehicle.write(sources=vehicle())
        world.broker.start()
        world.receiver.start()
        world.agent.start()
        await world.until("the agent is online", lambda s: s["link"]["state"] == "online", PATIENCE_S)
        document = folder / "toggles.json"
        for value in values:
            document.write_bytes(toggles(value))
            broker = f"localhost:{world.broker.fleet_port}"
            await world.fleet_command("publish", "--toggles", str(document), "--broker", broker)
            await asyncio.to_thread(until_served, world.agent, value)
        assert await asyncio.to_thread(world.agent.stop) == 0
        return world.agent.output()


def missing(log: str) -> list[list[str]]:
    """Return what each line of the log says about layers of confinement that are missing."""
    lines = [json.loads(line) for line in log.splitlines() if "verifier_less_confined" in line]
    assert all(line["level"] == "info" for line in lines)
    return [line["missing"] for line in lines]


def skip_unless_confined() -> None:
    if reason := service_filter.lacks():
        pytest.skip(reason)
    try:
        landlock_version()
    except OSError as error:
        pytest.skip(str(error))


def test_the_verifier_has_every_layer_under_the_filter_of_the_service(tmp_path: Path) -> None:
    skip_unless_confined()
    assert missing(asyncio.run(pushed(tmp_path, UNIT, [True]))) == []


def test_under_an_older_unit_pushes_are_verified_and_what_is_missing_is_logged_once(tmp_path: Path) -> None:
    skip_unless_confined()
    older = tmp_path / UNIT.name
    older.write_text(UNIT.read_text().replace(OUR_LINE, ""))
    assert older.read_text() != UNIT.read_text()
    (layers,) = missing(asyncio.run(pushed(tmp_path, older, [True, False])))
    assert [layer.split(" (")[0] for layer in layers] == ["Landlock", "no capabilities"]
