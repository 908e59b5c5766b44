"""A signed push travels over a real mosquitto with its access list, through the verifier, to the answer for an app."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.formats import topics
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator
from agent.formats.down.toggles import parse_toggles
from agent.link.mqtt import Connection, Endpoint, connect
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result
from agent.serve.toggles import ToggleService
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.commands import publish
from fleet.publishing import sync
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from tests.agent.pushes.world import toggles
from tests.agent.serve.serving import Served, serving

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class World:
    """Holds a fleet, one enrolled vehicle and a running broker."""

    fleet: FleetFolder
    car: Path
    vehicle: Attributes
    broker: Broker
    documents: Path

    def endpoint(self, name: str) -> Endpoint:
        port, cert, key = (
            (self.broker.fleet_port, self.fleet.receiver_certificate, self.fleet.receiver_key)
            if name == "receiver"
            else (self.broker.port, self.car / "device.crt.pem", self.car / "device.key.pem")
        )
        return Endpoint(self.broker.host, port, self.fleet.ca_certificate, cert, key, name)

    def publish(self, flags: bytes, broker: bool = False) -> None:
        file = self.documents / "toggles.json"
        file.write_bytes(flags)
        parser = argparse.ArgumentParser()
        publish.add_arguments(parser)
        nudge = ["--broker", f"{self.broker.host}:{self.broker.fleet_port}"] if broker else []
        options = argparse.Namespace(fleet=self.fleet.root, json=True)
        publish.run(parser.parse_args(["--toggles", str(file), *nudge], options))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    fleet = FleetFolder(tmp_path / "fleet")
    create_fleet(fleet, suite="X25519", broker_names=(), now=datetime.now(UTC))
    record = enrol(fleet, tmp_path / "car", Model("Aria", "One", "DE", 2026), days=30, now=datetime.now(UTC))
    vehicle = Attributes(record.vehicle, record.brand, record.model, record.market, record.model_year)
    with Broker(fleet, tmp_path / "broker") as broker:
        yield World(fleet, tmp_path / "car", vehicle, broker, tmp_path)


@asynccontextmanager
async def answering(world: World) -> AsyncIterator[None]:
    """Answer sync requests during a `with` block, in place of the receiver."""

    bundles = sync.Bundles(world.fleet)

    async def answer(connection: Connection) -> None:
        async for topic, payload in connection.messages():
            await sync.answer(connection, topic, payload, bundles)

    async with connect(world.endpoint("receiver")) as connection:
        await connection.subscribe([topics.ALL_SYNC])
        task = asyncio.create_task(answer(connection))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


async def evaluate(server: Served, key: str) -> object:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"POST /ofrep/v1/evaluate/flags/{key} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2]).get("value")


def test_a_signed_toggle_reaches_the_app_and_the_next_one_comes_by_nudge(world: World) -> None:
    async def drive() -> None:
        pushes = Pushes.open(
            world.car / "pushes", trusted_root=(world.car / "root.json").read_bytes(), vehicle=world.vehicle
        )
        service = ToggleService(world.vehicle)
        async with (
            answering(world),
            connect(world.endpoint(world.vehicle.vehicle)) as connection,
            serving(service.routes) as server,
        ):
            await connection.subscribe([topics.push(world.vehicle.vehicle), topics.NUDGE])
            messages = connection.messages()

            async def take() -> PushOutcome:
                await connection.publish(topics.sync(world.vehicle.vehicle), pushes.sync_request())
                topic, payload = await asyncio.wait_for(anext(messages), 10)
                assert topic == topics.push(world.vehicle.vehicle)
                outcome = await pushes.offer(payload)
                release = pushes.current()
                document = None if release is None else release.documents.get("toggles.json")
                service.replace(None if document is None else Evaluator(parse_toggles(document, "toggles.json")))
                return outcome

            assert await evaluate(server, "new-navigation") is None
            await asyncio.to_thread(world.publish, toggles())
            assert await take() == PushOutcome(Result.APPLIED, 2)
            assert await evaluate(server, "new-navigation") is True
            assert await take() == PushOutcome(Result.UNCHANGED, 2)

            await asyncio.to_thread(world.publish, toggles(False), True)
            assert await asyncio.wait_for(anext(messages), 10) == (topics.NUDGE, b"")
            assert await take() == PushOutcome(Result.APPLIED, 3)
            assert await evaluate(server, "new-navigation") is False

    asyncio.run(drive())
