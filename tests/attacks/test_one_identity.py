"""One identity is used twice: by a cloned head unit, or after old acknowledgements are replayed.  Real programs run."""

import asyncio
import copy
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.formats import telemetry_pb2 as pb
from agent.formats import topics
from agent.formats.up.seal import digest_of, read_header
from agent.link.mqtt import Endpoint, connect
from fleet.lake.query import query
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.agent.car import Car
from tests.attack_report import RecordAttack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def batches_of(car: Car) -> dict[str, Path]:
    """Return the files of all batches that wait on the vehicle's disk, by digest."""
    found = {}
    for path in (car.state / "spool" / "batches").rglob("*.batch"):
        # A running agent removes what is acknowledged.
        with suppress(FileNotFoundError):
            found[digest_of(path.read_bytes()).hex()] = path
    return found


def drive_offline(car: Car) -> set[str]:
    """Drive until some batches wait, and return the digests of all batches that wait."""
    with car.running() as agent:
        agent.until_status(lambda status: status["spool"]["waiting"] >= 4, "storing")
        assert agent.stop() == 0
    return set(batches_of(car))


def deliver(car: Car) -> None:
    """Drive online until every batch that waits now has left the spool."""
    waiting = batches_of(car).keys()
    with car.running() as agent:
        agent.until(lambda: not waiting & batches_of(car).keys(), "delivered")
        assert agent.stop() == 0


def stored(car: Car) -> set[str]:
    return set(query(str(car.fleet.lake), "SELECT digest FROM batches").column(0).to_pylist())


@contextmanager
def receiving(car: Car, broker: Broker) -> Iterator[Receiver]:
    log = car.folder / f"receiver-{time.monotonic_ns()}.log"
    with Receiver(car.fleet, broker.fleet_port, log).running_now() as receiver:
        receiver.until_connected()
        yield receiver
        assert receiver.stop() == 0, receiver.output()


def as_receiver(car: Car, broker: Broker) -> Endpoint:
    """Return how somebody connects who has the receiver's certificate, or who is the broker."""
    fleet = car.fleet
    certificate, key = fleet.receiver_certificate, fleet.receiver_key
    return Endpoint("localhost", broker.fleet_port, fleet.ca_certificate, certificate, key, "listener")


async def deliver_and_record(car: Car, vehicle: str) -> list[bytes]:
    """Deliver all batches of the disk as the vehicle, without the agent, and return the acknowledgements."""
    folder = car.identity
    endpoint = Endpoint(
        "localhost",
        car.broker_port,
        folder / "ca.crt.pem",
        folder / "device.crt.pem",
        folder / "device.key.pem",
        vehicle,
    )
    batches = [path.read_bytes() for path in batches_of(car).values()]
    heard: list[bytes] = []
    answered = 0
    async with connect(endpoint) as connection, asyncio.timeout(120):
        await connection.subscribe([topics.ack(vehicle)])
        for batch in batches:
            await connection.publish(topics.up(topics.partition_of(vehicle), vehicle, read_header(batch).lane), batch)
        async for _, payload in connection.messages():
            heard.append(payload)
            answered += len(pb.Ack.FromString(pb.SignedAck.FromString(payload).ack).stored)
            if answered >= len(batches):
                break
    return heard


@pytest.mark.attack(
    "1",
    "old signed acknowledgements are replayed",
    how="A disk is put back, and the broker sends the acknowledgements of the batches that had its numbers before.",
    before="the vehicle deleted what was never stored",
)
def test_replayed_acknowledgements_delete_nothing_that_they_do_not_name(car: Car, attack: RecordAttack) -> None:
    image = car.folder / "image"
    with Broker(car.fleet, car.folder / "broker", port=car.broker_port) as broker:
        drive_offline(car)
        with receiving(car, broker):
            deliver(car)
        shutil.copytree(car.state, image)
        delivered = drive_offline(car)
        (vehicle,) = (file.stem for file in car.fleet.vehicles.glob("*.json"))

        with receiving(car, broker):
            acks = asyncio.run(deliver_and_record(car, vehicle))
        shutil.rmtree(car.state)
        shutil.copytree(image, car.state)
        sealed = drive_offline(car) - delivered  # under the numbers that the acknowledgements name

        async def replay() -> None:
            async with connect(as_receiver(car, broker)) as connection:
                for payload in acks:
                    await connection.publish(topics.ack(vehicle), payload)

        with car.running() as agent:
            agent.until_status(lambda status: status["link"]["state"] == "online", "online")
            asyncio.run(replay())
            agent.until(lambda: agent.said("ack_of_other_batches"), "hearing the replayed acknowledgements")
            assert sealed <= batches_of(car).keys()
            assert agent.stop() == 0
        with receiving(car, broker):
            deliver(car)
    attack(figure={"acknowledgements": len(acks), "batches": len(sealed)})
    assert sealed <= stored(car)


@pytest.mark.attack(
    "1",
    "two head units have one identity",
    how="A head unit is copied after it has driven, and original and copy drive, collect and deliver in turn.",
    before="the batches of one of them were lost silently",
    receipt="epoch_forked",
)
def test_original_and_clone_are_both_stored_and_the_fleet_is_told(car: Car, attack: RecordAttack) -> None:
    with Broker(car.fleet, car.folder / "broker", port=car.broker_port) as broker:
        drive_offline(car)
        with receiving(car, broker):
            deliver(car)
        clone = copy.copy(car)
        clone.state = car.folder / "clone"
        shutil.copytree(car.state, clone.state)
        sealed: set[str] = set()
        told = 0
        for _ in range(2):
            for unit in (car, clone):
                unit.write(state=f'folder = "{unit.state.name}"\nruntime_folder = "run"')
                sealed |= drive_offline(unit)
            with receiving(car, broker) as receiver:
                for unit in (car, clone):
                    unit.write(state=f'folder = "{unit.state.name}"\nruntime_folder = "run"')
                    deliver(unit)
                told += receiver.said("epoch_forked")
    attack(figure={"batches": len(sealed)})
    assert told == 1
    assert sealed <= stored(car)
    assert (
        query(str(car.fleet.lake), "SELECT count(*) - count(DISTINCT (epoch, seq)) FROM batches").column(0)[0].as_py()
    )
