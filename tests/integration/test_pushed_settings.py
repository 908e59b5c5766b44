"""Settings and databases travel from `fleet publish` through a real broker into a running agent, and into the lake."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.formats.down.audience import EVERYONE
from fleet.publishing import repository
from fleet.publishing.nudge import nudge
from fleet.publishing.targets import target_of
from lab.fleet import fleet_command
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import Agent, delivered
from tests.agent.car import DATABASES, Car, command, drive, vehicle
from tests.agent.expected import count_samples
from tests.integration.lake import in_lake

pytestmark = pytest.mark.integration

DEMO = (DATABASES / "demo_body.dbc").read_bytes()
DRIVE_S = 45.0
SETTINGS = b"""
[uplink]
in_flight = 7
backlog_kbit_s = 100
[telemetry]
increment_s = 0.3
[log]
level = "warning"
[bus.can1]
dbc = ["body.dbc"]
"""


class Road:
    """A car on the road: its broker and receiver run, and it publishes to the running agent."""

    def __init__(self, car: Car, broker: Broker, agent: Agent) -> None:
        self.car = car
        self.broker = broker
        self.agent = agent

    def file(self, name: str, content: bytes) -> str:
        path = self.car.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def publish(self, *options: str) -> int:
        """Publish, and wait until the agent has the release in force.  Return its version."""
        broker = f"localhost:{self.broker.fleet_port}"
        version = int(fleet_command(self.car.fleet, "publish", *options, "--broker", broker)["targets"])
        self.agent.until_status(lambda status: status["pushes"]["version"] == version, f"release {version}")
        return version

    def sign_as_is(self, path: str, content: bytes) -> None:
        """Publish a document without its checks, as a thief of the keys could."""
        fleet, now = self.car.fleet, datetime.now(UTC)
        state = repository.read_state(fleet.metadata)
        target, stored = target_of(path, content, EVERYONE)
        targets = {**state.targets.targets, path: target}
        repository.write_version(fleet, state.versions, targets, {path: stored}, bins=None, now=now, expiry_days=90)
        asyncio.run(nudge(fleet, "localhost", self.broker.fleet_port))

    def effective(self) -> Any:
        done = command("agent", "check", "--config", self.car.config, "--effective", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["settings"]


@pytest.mark.timeout(300)  # four programs share a busy machine
def test_settings_and_databases_change_a_running_agent_without_losing_a_sample(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources=vehicle(DRIVE_S), pushes="trial_s = 600")
    broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, car.folder / "receiver.log")
    with broker, receiver.running_now(), car.running() as agent:
        road = Road(car, broker, agent)
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        files = ("--settings", road.file("s.toml", SETTINGS), "--database", road.file("can1/body.dbc", renamed(DEMO)))
        version = road.publish(*files)
        found = road.effective()
        assert found["uplink.in_flight"] == {"value": 7, "origin": f"release {version}", "remote": True}
        assert found["telemetry.increment_s"]["value"] == 0.3
        assert found["bus.can1.dbc"] == {
            "value": ["dbc/can1/body.dbc"],
            "origin": f"release {version}",
            "remote": True,
        }
        # The line about this release is below the level that this release sets.
        assert version not in [line["release"] for line in agent.lines("in_force")]

        road.sign_as_is("settings/evil.toml", b"name = 'evil'\n[uplink]\nbroker = 'evil.example:8883'")
        agent.until_status(lambda status: status["pushes"]["refused"].get("invalid") == 1, "refused")
        assert road.effective() == found

        last = road.publish(
            "--remove-settings", "settings", "--remove-settings", "evil", "--remove-database", "can1/body.dbc"
        )
        found = road.effective()
        assert (found["uplink.in_flight"]["value"], found["uplink.in_flight"]["origin"]) == (64, "default")
        assert (found["telemetry.increment_s"]["value"], found["telemetry.increment_s"]["origin"]) == (0.2, "file")
        assert found["bus.can1.dbc"]["origin"] == "file"
        assert last in [line["release"] for line in agent.lines("in_force")]

        agent.until_status(delivered, "delivered", DRIVE_S + 120)
        # Neither the link nor the agent was started again.
        assert (agent.said("agent_ready"), agent.said("link_online")) == (1, 1)
        assert agent.stop() == 0
        assert receiver.stop() == 0, receiver.output()
    assert in_lake(car, "SELECT count(*) FROM samples") == count_samples(drive(DRIVE_S))
    renamed_samples = in_lake(car, "SELECT count(*) FROM samples WHERE signal LIKE '%Portal%'")
    own_samples = in_lake(car, "SELECT count(*) FROM samples WHERE signal LIKE '%Door%'")
    assert renamed_samples > 0
    assert own_samples > 0
    # Each window has the signals of one set of databases: the times of the renamed ones lie between the others.
    assert (
        in_lake(
            car,
            "SELECT count(*) FROM samples WHERE signal LIKE '%Door%' AND time BETWEEN "
            "(SELECT min(time) FROM samples WHERE signal LIKE '%Portal%') AND "
            "(SELECT max(time) FROM samples WHERE signal LIKE '%Portal%')",
        )
        == 0
    )
    receipts = "SELECT list(fields ORDER BY time) FROM events WHERE kind = "
    (refused,) = in_lake(car, f"{receipts}'push_refused'")
    assert "settings/evil.toml: uplink.broker: the fleet cannot set this" in str(refused)
    first, second = in_lake(car, f"{receipts}'settings_in_force'")
    assert len(in_lake(car, f"{receipts}'databases_in_force'")) == 2
    assert json.loads(first)["uplink.in_flight"] == 7
    assert json.loads(second)["uplink.in_flight"] == 64
    assert in_lake(car, "SELECT count(*) FROM events WHERE kind LIKE '%lost%'") == 0


def renamed(database: bytes) -> bytes:
    return database.replace(b"Door", b"Portal")
