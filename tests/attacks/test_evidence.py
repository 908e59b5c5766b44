"""What a vehicle sends that is no batch stays small: in the quarantine, in the log and on the disk of the receiver."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from agent.formats import topics
from agent.link.mqtt import connect
from fleet.receiving.quarantine import MOST
from fleet.state.folder import FleetFolder
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.attack_report import RecordAttack
from tests.attacks.honest import endpoint_of
from tests.fleet.vehicles import Vehicle, make_vehicle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

FLOOD = 3 * MOST
LINES = 200
"""More lines than a receiver writes in its start, its stop and its regular reports."""


async def send(vehicle: Vehicle, port: int, payloads: list[bytes]) -> None:
    async with connect(endpoint_of(vehicle, port)) as connection:
        for payload in payloads:
            await connection.publish(vehicle.topic, payload)


async def ask_until_stored(vehicle: Vehicle, port: int) -> None:
    """Send a batch, and wait for its acknowledgement: the receiver has handled all that was sent before."""
    async with connect(endpoint_of(vehicle, port)) as connection, asyncio.timeout(120):
        await connection.subscribe([topics.ack(vehicle.name)])
        await connection.publish(vehicle.topic, vehicle.batch(1_000))
        async for _, payload in connection.messages():
            if vehicle.verify(payload).stored:
                return


@pytest.mark.attack(
    "15",
    "a vehicle flushes evidence out of the quarantine and fills log and disk",
    how="After an honest vehicle's damaged batch, one vehicle sends messages that are no batches, each another one.",
    before="evidence of others was flushed, and the log had a line for each message",
)
def test_a_flood_of_rubbish_displaces_no_evidence_and_fills_neither_log_nor_disk(
    fleet: FleetFolder, tmp_path: Path, attack: RecordAttack
) -> None:
    honest, bad = make_vehicle(fleet, tmp_path / "honest"), make_vehicle(fleet, tmp_path / "bad")
    evidence = honest.sealed(1, b"damaged on its way")
    with (
        Broker(fleet, tmp_path / "broker") as broker,
        Receiver(fleet, broker.fleet_port, tmp_path / "receiver.log").running_now() as receiver,
    ):
        receiver.until_connected()
        asyncio.run(send(honest, broker.port, [evidence]))
        asyncio.run(send(bad, broker.port, [b"rubbish %d" % number for number in range(FLOOD)]))
        asyncio.run(ask_until_stored(honest, broker.port))
        assert receiver.stop() == 0, receiver.output()[-2_000:]
    kept = {hashlib.sha256(path.read_bytes()).digest() for path in fleet.quarantine.glob("*.sealed")}
    lines = len(receiver.output().splitlines())
    attack(figure={"messages": FLOOD, "kept_files": len(kept), "log_lines": lines}, receipt="vehicle_over_its_share")
    assert hashlib.sha256(evidence).digest() in kept
    assert len(kept) <= MOST + 1
    assert lines < LINES
