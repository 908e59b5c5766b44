"""One enrolled vehicle connects with the client id of another, and the other vehicle stays connected."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.formats import topics
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from tests.attack_report import RecordAttack
from tests.attacks.honest import endpoint_of
from tests.fleet.vehicles import make_vehicle

pytestmark = pytest.mark.integration

TIMES = 10


@pytest.mark.attack(
    "13",
    "a vehicle connects with the client id of another",
    how="An enrolled vehicle connects ten times with the client id of another vehicle.",
    before="each connection disconnected the other car",
)
def test_a_vehicle_with_the_client_id_of_another_does_not_disconnect_it(
    fleet: FleetFolder, tmp_path: Path, attack: RecordAttack
) -> None:
    victim, bad = make_vehicle(fleet, tmp_path / "victim"), make_vehicle(fleet, tmp_path / "bad")

    async def drive(port: int) -> int:
        nudges = 0
        async with connect(endpoint_of(victim, port)) as connection:
            await connection.subscribe([topics.push(victim.name)])
            for _ in range(TIMES):
                async with connect(replace(endpoint_of(bad, port), client_id=victim.name)):
                    await connection.publish(topics.sync(victim.name), b"", timeout_s=60.0)
                    nudges += 1
        return nudges

    with Broker(fleet, tmp_path / "broker") as broker:
        published = asyncio.run(drive(broker.port))
        assert "already connected" not in broker.log.read_text()
    attack(figure={"connections": TIMES})
    assert published == TIMES
