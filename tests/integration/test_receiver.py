"""Test the receiver as a real process, with a real broker with mutual TLS and real Delta tables."""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats import topics
from agent.formats.up.acks import Refusal
from agent.link.mqtt import Connection, Endpoint, PublishRefused, connect
from fleet.lake.query import query
from fleet.state.certificates import create_client
from fleet.state.folder import FleetFolder
from fleet.state.keys import read_p256, write_certificate
from fleet.state.registry import Registry
from lab.mosquitto import Broker, free_port
from lab.process import PATIENCE_S
from lab.receiver import Receiver
from tests.fleet.vehicles import EPOCH, Vehicle, make_vehicle

pytestmark = pytest.mark.integration


def in_event_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def has_said(receiver: Receiver, text: str) -> bool:
    return text in receiver.output()


async def connected(receiver: Receiver, times: int = 1) -> None:
    await asyncio.to_thread(receiver.until_connected, times)


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


@dataclass
class Heard:
    """Collects the fleet's answers to a vehicle, whose signatures are verified."""

    stored: set[int] = field(default_factory=set)
    refused: dict[int, Refusal] = field(default_factory=dict)
    count: int = 0

    def more_than(self, count: int) -> bool:
        return self.count > count


@contextlib.asynccontextmanager
async def online(vehicle: Vehicle, port: int, heard: Heard) -> AsyncIterator[Connection]:
    """Connect the vehicle to the broker for a `with` block, and collect its acknowledgements in `heard`."""
    endpoint = Endpoint(
        host="localhost",
        port=port,
        ca_file=vehicle.folder / "ca.crt.pem",
        cert_file=vehicle.folder / "device.crt.pem",
        key_file=vehicle.folder / "device.key.pem",
        client_id=f"{vehicle.name}-{random.randrange(10**9)}",
        timeout_s=5.0,
    )
    async with connect(endpoint) as connection:
        await connection.subscribe([topics.ack(vehicle.name)])
        listening = asyncio.create_task(listen(vehicle, connection, heard))
        try:
            yield connection
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def listen(vehicle: Vehicle, connection: Connection, heard: Heard) -> None:
    async for _, payload in connection.messages():
        ack = vehicle.verify(payload)
        assert (ack.vehicle, ack.epoch) == (vehicle.name, EPOCH)
        heard.stored |= {seq for seq, _ in ack.stored}
        heard.refused |= ack.refused
        heard.count += 1


@pytest.fixture
def broker(fleet: FleetFolder, tmp_path: Path) -> Iterator[Broker]:
    with Broker(fleet, tmp_path / "broker") as running:
        yield running


@pytest.fixture
def receiver(fleet: FleetFolder, broker: Broker, tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(fleet, broker.fleet_port, tmp_path / "receiver.log").running_now() as process:
        yield process


def rows_by_batch(fleet: FleetFolder) -> dict[int, tuple[int, int]]:
    """Return (sample rows, event rows) by sequence number, counted in the tables of samples and events."""
    table = query(
        str(fleet.lake),
        "SELECT seq, (SELECT count(*) FROM samples s WHERE s.seq = b.seq), (SELECT count(*) FROM events e "
        "WHERE e.seq = b.seq) FROM batches b",
    )
    rows = [tuple(column[i].as_py() for column in table.columns) for i in range(table.num_rows)]
    assert len({row[0] for row in rows}) == len(rows), "the table of batches has a batch twice"
    return {seq: (samples, events) for seq, samples, events in rows}


@in_event_loop
async def test_batches_that_arrive_out_of_order_and_twice_are_each_stored_once(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, receiver: Receiver
) -> None:
    heard = Heard()
    await connected(receiver)
    async with online(vehicle, broker.port, heard) as connection:
        for seq in (1, 3, 2, 3, 1):  # one commit each, in any order of numbers
            before = heard.count
            await connection.publish(vehicle.topic, vehicle.batch(seq))
            await until(functools.partial(heard.more_than, before))
    assert heard.stored == {1, 2, 3}
    assert receiver.stop() == 0
    assert rows_by_batch(fleet) == {1: (20, 1), 2: (20, 1), 3: (20, 1)}
    assert '"duplicates": 2' in receiver.output()


@in_event_loop
async def test_only_what_the_vehicle_signed_and_nobody_can_read_is_refused_to_it(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    heard = Heard()
    stranger = make_vehicle(fleet, tmp_path / "stranger")
    forgotten = make_vehicle(fleet, tmp_path / "forgotten")
    (fleet.vehicles / f"{forgotten.name}.json").unlink()
    revoked = make_vehicle(fleet, tmp_path / "revoked")
    Registry(fleet.vehicles).revoke(revoked.name)
    tampered = bytearray(vehicle.batch(5))
    tampered[-1] ^= 1
    await connected(receiver)
    async with online(vehicle, broker.port, heard) as connection:
        await connection.publish(vehicle.topic, vehicle.batch(4, key=stranger.key))
        await connection.publish(vehicle.topic, bytes(tampered))
        await connection.publish(vehicle.topic.replace("live", "events"), vehicle.batch(6))
        await connection.publish(vehicle.topic, stranger.batch(7))
        await connection.publish(vehicle.topic, b"rubbish")
        await connection.publish(vehicle.topic, vehicle.batch(8))
        await until(lambda: heard.stored == {8})
        await connection.publish(vehicle.topic, vehicle.sealed(9, b"no body of ours"))
        await until(lambda: bool(heard.refused))
    assert heard.refused.keys() == {9}
    assert "decompress" in heard.refused[9].reason
    for other, reason in ((forgotten, "is not enrolled"), (revoked, "is revoked")):
        told = Heard()
        async with online(other, broker.port, told) as connection:
            await connection.publish(other.topic, other.batch(1))
            await until(functools.partial(has_said, receiver, f"{other.name} {reason}"))
            await asyncio.sleep(0.3)
        assert told.count == 0
    assert receiver.stop() == 0
    assert rows_by_batch(fleet) == {8: (20, 1)}
    assert len(list(fleet.quarantine.glob("*.sealed"))) == 8
    assert '"refused": 8, "unanswered": 7' in receiver.output()


@in_event_loop
async def test_a_vehicle_may_neither_publish_nor_listen_for_another(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    victim = make_vehicle(fleet, tmp_path / "victim")
    mine, overheard = Heard(), Heard()
    await connected(receiver)
    async with online(vehicle, broker.port, mine) as connection, online(victim, broker.port, overheard) as other:
        for topic in (victim.topic, topics.ack(victim.name), topics.push(victim.name), topics.NUDGE):
            with pytest.raises(PublishRefused, match="ACL"):
                await connection.publish(topic, vehicle.batch(1))
        await connection.subscribe(
            [topics.ack(victim.name), f"{topics.ROOT}/up/#"]
        )  # mosquitto grants these and delivers nothing
        await other.publish(victim.topic, victim.batch(1))
        await until(lambda: overheard.stored == {1})
        await connection.publish(vehicle.topic, vehicle.batch(2))
        await until(lambda: mine.stored == {2})  # `listen` asserts that no answer to the victim came
    assert mine.count == 1


@in_event_loop
async def test_the_receiver_waits_for_a_broker_that_died_and_says_so_once(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, receiver: Receiver
) -> None:
    heard = Heard()
    await connected(receiver)
    broker.kill()
    await until(lambda: '"broker_lost"' in receiver.output())
    await asyncio.sleep(2.0)
    broker.start()
    await connected(receiver, times=2)
    async with online(vehicle, broker.port, heard) as connection:
        await connection.publish(vehicle.topic, vehicle.batch(1))
        await until(lambda: heard.stored == {1})
    assert receiver.stop() == 0
    assert receiver.output().count('"broker_lost"') == 1
    assert '"broker_unreachable"' not in receiver.output()


@in_event_loop
async def test_a_second_receiver_of_the_same_partitions_is_turned_away(
    fleet: FleetFolder, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    await connected(receiver)
    second = Receiver(fleet, broker.fleet_port, tmp_path / "second.log")
    second.start()
    await until(lambda: "another receiver serves" in second.output())
    assert second.wait() == 1
    assert receiver.stop() == 0


async def deliver(vehicle: Vehicle, port: int, batches: dict[int, bytes], heard: Heard) -> None:
    """Send the batches that are not acknowledged, again and again, in any order, as a vehicle does."""
    rng = random.Random(1)
    while waiting := sorted(set(batches) - heard.stored):
        rng.shuffle(waiting)
        with contextlib.suppress(Transient):
            async with online(vehicle, port, heard) as connection:
                for seq in waiting:
                    await connection.publish(vehicle.topic, batches[seq])
                    await asyncio.sleep(0.005)
                await asyncio.sleep(1.0)


@in_event_loop
async def test_a_receiver_killed_at_random_moments_stores_every_batch_exactly_once(
    fleet: FleetFolder, vehicle: Vehicle, broker: Broker, receiver: Receiver
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # pytest shows this if the test fails
    rng = random.Random(seed)
    batches = {seq: vehicle.batch(seq) for seq in range(1, 301)}
    heard = Heard()
    delivery = asyncio.create_task(deliver(vehicle, broker.port, batches, heard))
    kills = connections = 0
    while kills < 15 and not delivery.done():
        if rng.random() < 0.7:  # otherwise it may be killed during its recovery
            await connected(receiver, times=connections + 1)
        await asyncio.sleep(rng.uniform(0.0, 0.7))
        receiver.kill()
        connections = receiver.output().count('"broker_connected"')
        kills += 1
        receiver.start()
    await asyncio.wait_for(delivery, PATIENCE_S)
    await connected(receiver, times=connections + 1)
    assert receiver.stop() == 0
    print(f"{kills} kills, {receiver.output().count('commit_recovered')} commits recovered")
    assert kills >= 3
    assert heard.refused == {}
    assert rows_by_batch(fleet) == dict.fromkeys(batches, (20, 1))


@in_event_loop
async def test_an_unreachable_broker_is_waited_for_and_said_once(fleet: FleetFolder, tmp_path: Path) -> None:
    process = Receiver(fleet, free_port(), tmp_path / "receiver.log")
    process.start()
    await until(lambda: '"broker_unreachable"' in process.output())
    await asyncio.sleep(2.0)
    assert process.stop() == 0
    assert process.output().count('"broker_unreachable"') == 1
    assert "Traceback" not in process.output()


@in_event_loop
async def test_an_expired_certificate_is_one_message_and_the_end(fleet: FleetFolder, tmp_path: Path) -> None:
    key = read_p256(fleet.receiver_key)
    past = datetime.now(UTC) - timedelta(days=30)
    expired = create_client(key, common_name="receiver", now=past, days=1, serial=1)
    write_certificate(fleet.receiver_certificate, expired)
    process = Receiver(fleet, free_port(), tmp_path / "receiver.log")
    process.start()
    assert process.wait() == 1
    assert f"fleet: {fleet.receiver_certificate}: the certificate expired" in process.output()
    assert "Traceback" not in process.output()
