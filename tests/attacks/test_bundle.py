"""A vehicle asks a real receiver for its release, and looks for traces of other vehicles in the answer."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.formats import topics
from agent.formats.down.bundle import SyncRequest, Versions, build_request, parse_bundle
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from lab.fleet import fleet_command
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import collect_everything
from tests.attack_report import RecordAttack
from tests.attacks.honest import endpoint_of
from tests.fleet.vehicles import Vehicle, make_vehicle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


async def bundle_for(vehicle: Vehicle, port: int) -> bytes:
    async with connect(endpoint_of(vehicle, port)) as connection, asyncio.timeout(60):
        await connection.subscribe([topics.push(vehicle.name)])
        await connection.publish(topics.sync(vehicle.name), build_request(SyncRequest(vehicle.name, Versions())))
        async for _, payload in connection.messages():
            return payload
    raise AssertionError("the broker ended the connection before the answer came")


@pytest.mark.attack(
    "14",
    "a vehicle looks for other vehicles in its bundle",
    how="Campaigns are published for one vehicle, for another and for both; each asks for its release and reads all.",
    before="documents and pseudonyms of other vehicles",
)
def test_a_bundle_from_the_receiver_names_no_other_vehicle_and_none_of_its_documents(
    fleet: FleetFolder, tmp_path: Path, attack: RecordAttack
) -> None:
    vehicles = [make_vehicle(fleet, tmp_path / name) for name in ("one", "two")]
    first, second = (vehicle.name for vehicle in vehicles)
    for name, audience in (
        ("for-first", [f"vehicle={first}"]),
        ("for-second", [f"vehicle={second}"]),
        ("for-all", []),
    ):
        document = tmp_path / f"{name}.json"
        document.write_text(json.dumps(collect_everything(1_000, name=name)))
        options = [word for each in audience for word in ("--audience", each)]
        fleet_command(fleet, "publish", "--campaign", str(document), *options)
    with (
        Broker(fleet, tmp_path / "broker") as broker,
        Receiver(fleet, broker.fleet_port, tmp_path / "receiver.log").running_now() as receiver,
    ):
        receiver.until_connected()
        bundles = [asyncio.run(bundle_for(vehicle, broker.port)) for vehicle in vehicles]
        assert receiver.stop() == 0, receiver.output()[-2_000:]
    found = []
    for bundle, own, strangers in (
        (bundles[0], "for-first", (second, "for-second")),
        (bundles[1], "for-second", (first, "for-first")),
    ):
        text = "\n".join(f"{name}\n{content.decode()}" for name, content in parse_bundle(bundle).items())
        assert own in text
        assert "for-all" in text
        found += [stranger for stranger in strangers if stranger in text]
    attack(figure={"traces": len(found)})
    assert not found
