"""Runs the victim of attacks on pushes: a real agent with a release in force, behind a real mosquitto and receiver."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.formats import topics
from agent.formats.down.audience import Attributes
from agent.formats.down.bundle import SyncRequest, Versions
from agent.link.mqtt import Endpoint, connect
from fleet.lake.query import query
from fleet.publishing.sync import Bundles
from fleet.state.registry import Registry
from lab.machine import Machine
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import Agent
from tests.agent.car import Car
from tests.agent.pushes.world import Fleet, campaign, toggles
from tests.attacks.forgeries import Scene

FLAG = "new-navigation"
PATIENCE_S = 100.0
"""After a refusal the agent waits up to 60 s before it examines the next bundle."""


@dataclass
class Victim:
    """One car with its fleet.  `agent` is the running agent, which `running` starts and stops."""

    car: Car
    fleet: Fleet
    vehicle: Attributes
    broker: Broker
    agent: Agent | None = None

    @classmethod
    def make(cls, folder: Path, machine: Machine | None = None) -> "Victim":
        car = Car.make(folder, machine=machine, pushes="trial_s = 0.5")
        registry = Registry(car.fleet.vehicles)
        (name,) = registry.names()
        record = registry.read(name)
        assert record is not None
        broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
        return cls(car, Fleet.of(car.fleet), record.attributes, broker)

    @contextmanager
    def running(self) -> Iterator[Agent]:
        """Run the agent, and wait until it has asked for its release."""
        with self.car.running() as agent:
            self.agent = agent
            agent.until_status(lambda status: status["link"]["state"] == "online", "online", PATIENCE_S)
            yield agent
            assert agent.stop() == 0, agent.output()[-2_000:]

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Run the receiver, which answers the vehicle and stores its receipts."""
        log = self.car.folder / "receiver.log"
        with Receiver(self.car.fleet, self.broker.fleet_port, log).running_now() as receiver:
            receiver.until_connected(receiver.output().count('"broker_connected"') + 1)
            yield
            assert receiver.stop() == 0, receiver.output()[-2_000:]

    def genuine(self) -> bytes:
        """Return the bundle of everything that the fleet has for the vehicle."""
        return Bundles(self.fleet.folder).answer(SyncRequest(self.vehicle.vehicle, Versions()))

    def offer(self, payload: bytes) -> None:
        """Publish a bundle on the vehicle's topic."""
        self.send(topics.push(self.vehicle.vehicle), payload)

    def send(self, topic: str, *payloads: bytes) -> None:
        """Publish `payloads` on a topic of the vehicle, as the broker or a thief of the receiver's key can."""
        fleet = self.car.fleet
        key = (fleet.ca_certificate, fleet.receiver_certificate, fleet.receiver_key)
        endpoint = Endpoint("localhost", self.broker.fleet_port, *key, "attacker")

        async def publish() -> None:
            async with connect(endpoint) as connection:
                for payload in payloads:
                    await connection.publish(topic, payload)

        asyncio.run(publish())

    def accept(self) -> None:
        """Offer the vehicle what its fleet has published, and wait until it is in force and has passed its trial."""
        version = json.loads(self._newest_targets())["signed"]["version"]
        self.offer(self.genuine())
        self.until(lambda pushes: pushes["version"] == version and not pushes["in_trial"], f"release {version}")

    def refuse(self, payload: bytes, *, genuine_keys: bool = False, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Offer a hostile bundle, and return its receipt.  The vehicle must have the same state before and after.

        What genuine keys have signed may raise the versions that the vehicle has seen, but changes nothing else.
        """
        examined, receipts = self.pushes()["examined"], len(self.receipts())
        before = self.state(disk=not genuine_keys)
        self.offer(payload)
        self.until(lambda pushes: pushes["examined"] > examined, "the hostile bundle is examined", patience_s)
        assert self.agent is not None
        self.agent.until(lambda: len(self.receipts()) == receipts + 1, "its receipt is in the lake", patience_s)
        assert self.state(disk=not genuine_keys) == before
        receipt = self.receipts()[-1]
        # A genuine bundle ends the back-off, so that the next attack is examined soon.
        self.offer(self.genuine())
        self.until(lambda pushes: pushes["examined"] > examined + 1, "a genuine bundle is examined")
        return receipt

    def state(self, *, disk: bool = True) -> dict[str, Any]:
        """Return what an attack must not change: the release in force, what apps get, and the files of pushes."""
        assert self.agent is not None
        kept = [self.car.folder / "run", *([self.car.state / "pushes"] if disk else [])]
        files = [path for folder in kept for path in sorted(folder.rglob("*")) if path.is_file()]
        pushes = self.pushes()
        return {
            "release": (pushes["version"], pushes["in_trial"]),
            "toggle": self.agent.toggle(FLAG),
            "campaigns": [one["name"] for one in self.agent.status()["telemetry"]["campaigns"]],
            "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        }

    def pushes(self) -> dict[str, Any]:
        assert self.agent is not None
        found: dict[str, Any] = self.agent.status()["pushes"]
        return found

    def receipts(self) -> list[dict[str, Any]]:
        """Return the receipts of refused pushes that are in the lake, in the order of the vehicle."""
        sql = "SELECT fields FROM events WHERE kind = 'push_refused' ORDER BY seq, row"
        rows = query(str(self.car.fleet.lake), sql)
        return [json.loads(fields) for fields in rows.column(0).to_pylist()]

    def _newest_targets(self) -> bytes:
        folder = self.fleet.folder.metadata
        return max(folder.glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0])).read_bytes()

    def until(self, test: Any, what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until the status of pushes passes `test`.  `what` names the condition in errors."""
        assert self.agent is not None
        self.agent.until_status(lambda status: test(status["pushes"]), what, patience_s)


@contextmanager
def attacked(folder: Path) -> Iterator[tuple[Victim, Scene]]:
    """Run a victim that has applied three releases, and has seen a new root that replaced the key of the timestamp."""
    victim = Victim.make(folder)
    fleet = victim.fleet
    revoked = fleet.signer("timestamp")
    with victim.broker, victim.receiving(), victim.running():
        fleet.publish(toggles(False))
        victim.accept()
        fleet.rotate_root(("root1", "root2"), replace_key="timestamp")
        fleet.publish(toggles(False), campaign("drive"))
        victim.accept()
        older = victim.genuine()
        fleet.publish(toggles())
        victim.accept()
        (folder / "attacker").mkdir()
        yield victim, Scene(fleet, victim.vehicle, older, revoked, folder / "attacker")
