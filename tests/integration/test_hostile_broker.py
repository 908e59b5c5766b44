"""A broker, or an attacker who sits on it, cannot end an agent by what it sends."""

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.link.mqtt import Endpoint, connect
from bench.process_costs import memory_kb
from fleet.state.folder import FleetFolder
from tests.agent.car import Car
from tests.agent.link.test_packets import packet, publish
from tests.attack_report import RecordAttack
from tests.integration.hostile_broker import HostileBroker, Repeated

pytestmark = pytest.mark.integration

ANNOUNCED_BYTES = 250_000_000
HUGE_PUBLISH = b"\x30\x80\xe5\x9a\x77"  # the first bytes of a PUBLISH of ANNOUNCED_BYTES
ROOM_KB = 30_000  # An agent grows by 2 MB in 40 such connections.  A packet that is collected takes 490 MB.
FLOOD_BYTES = 100_000_000


@pytest.mark.attack(
    "5",
    "a broker announces a packet of 250 MB",
    how="A broker sends 250 MB in one PUBLISH, again at every connection.",
    before="912 MB",
)
def test_a_packet_of_250_mb_is_dropped_on_its_announced_length_and_the_agent_lives(
    tmp_path: Path, attack: RecordAttack
) -> None:
    car = Car.make(tmp_path)
    huge = Repeated(HUGE_PUBLISH, bytes(65_536), ANNOUNCED_BYTES)
    with car.running() as agent:
        agent.until_status(lambda status: status["link"]["problem"], "one attempt to connect")
        before_kb = memory_kb(agent.pid, "VmHWM:")
        with HostileBroker(car.fleet.broker.certificate, car.fleet.broker.key, huge, port=car.broker_port) as broker:
            broker.until_taken(4)
            agent.until_status(lambda status: "announced" in (status["link"]["problem"] or ""), "the reason is told")
        assert agent.running
        after_kb = memory_kb(agent.pid, "VmHWM:")
        attack(figure={"agent_mb": after_kb // 1000, "grown_mb": (after_kb - before_kb) // 1000})
        assert after_kb - before_kb < ROOM_KB
    assert max(broker.taken_bytes) < 8_000_000  # what the buffers of two sockets hold


@pytest.fixture(scope="module")
def car(tmp_path_factory: pytest.TempPathFactory) -> Car:
    return Car.make(tmp_path_factory.mktemp("car"))


@contextmanager
def attacked(car: Car, attack: Repeated) -> Iterator[Endpoint]:
    fleet: FleetFolder = car.fleet
    with HostileBroker(fleet.broker.certificate, fleet.broker.key, attack) as broker:
        device = car.identity
        yield Endpoint(
            "localhost",
            broker.port,
            device / "ca.crt.pem",
            device / "device.crt.pem",
            device / "device.key.pem",
            "vehicle",
            timeout_s=5.0,
        )


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (packet(0xC0, b"") * 1000, "type 12"),
        (publish(qos=2, payload=bytes(1000)), "QoS 2"),
        (publish(properties=b"\x26\x00\x00\x00\x00" * 10_000), "properties"),
        (packet(0x90, b"\x00\x01\x00" + bytes(100_000)), "SUBACK"),
        (publish(qos=0) * 1000, "wait to be read"),
        (publish() * 1000, "wait to be read"),
    ],
    ids=["pings", "messages of QoS 2", "properties", "answers", "unread messages of QoS 0", "unread messages"],
)
@pytest.mark.attack(
    "5",
    "a broker floods a client",
    how="A broker sends 100 MB of answers, properties or messages that nobody reads.",
)
def test_a_flood_ends_the_connection_before_it_fills_the_memory(car: Car, chunk: bytes, reason: str) -> None:
    async def attempt(endpoint: Endpoint) -> None:
        async with connect(endpoint) as connection:
            messages = connection.messages()
            await anext(messages)
            # The reader is busy, as it is while a push is verified.
            await asyncio.sleep(5)
            async for _ in messages:
                pass

    async def wait_for_the_end(endpoint: Endpoint) -> None:
        async with asyncio.timeout(20):
            await attempt(endpoint)

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.monotonic()
    with attacked(car, Repeated(chunk, chunk, FLOOD_BYTES)) as endpoint, pytest.raises(Transient, match=reason):
        asyncio.run(wait_for_the_end(endpoint))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 80_000
    assert time.monotonic() - started_s < 15
