"""A large document travels from the real receiver over mosquitto to the real agent, which is killed meanwhile."""

import random
import time
from pathlib import Path

import pytest

from lab.fleet import fleet_command
from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.vehicle import delivered
from tests.agent.car import DATABASES, Car, vehicle
from tests.agent.pushes.world import noisy_campaign
from tests.integration.lake import in_lake, receiving, samples_in_lake

pytestmark = pytest.mark.integration


def test_a_large_document_arrives_over_kills_of_the_agent_and_nothing_is_fetched_twice(tmp_path: Path) -> None:
    car = Car.make(tmp_path)
    document = tmp_path / "large.json"
    document.write_bytes(noisy_campaign("large", 640_000))
    fleet_command(car.fleet, "publish", "--campaign", str(document))
    folder = car.state / "pushes" / "large"
    with receiving(car):
        for _ in range(3):
            agent = car.start()
            _until_more_chunks(folder)
            before = {path: path.stat().st_mtime_ns for path in folder.glob("*/[0-9]*")}
            agent.kill()
        with car.running() as agent:
            status = agent.until_status(lambda status: status["pushes"]["version"] == 2, "the release is in force")
    assert status["pushes"]["refused"] == {}
    assert status["pushes"]["chunks"]["missing"] == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/[0-9]*")}
    assert len(after) == 7
    assert before.items() <= after.items()


def test_a_broker_whose_packet_limit_is_below_a_chunk_is_named_and_telemetry_goes_on(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources=vehicle(5.0))
    document = tmp_path / "large.json"
    document.write_bytes(noisy_campaign("large", 150_000))
    fleet_command(car.fleet, "publish", "--campaign", str(document))
    broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, car.folder / "receiver.log")
    broker.start(packet_bytes=65_536)
    try:
        with receiver.running_now(), car.running() as agent:
            agent.until_status(lambda status: status["pushes"]["chunks"]["missing"] == 2, "the bundle is trusted")
            receiver.until(lambda: "exceeds the Maximum Packet Size" in receiver.output(), "said", 60)
            agent.until_status(delivered, "delivered", 150)
            assert samples_in_lake(car) > 0
            assert receiver.stop() == 0, receiver.output()
    finally:
        broker.stop()


@pytest.mark.timeout(300)  # four programs share a busy machine
def test_a_database_of_5_mb_arrives_in_chunks_and_decodes_the_next_frames(tmp_path: Path) -> None:
    car = Car.make(tmp_path, sources=vehicle(40.0), pushes="trial_s = 600")
    document = tmp_path / "can1" / "body.dbc"
    document.parent.mkdir()
    document.write_bytes(_large((DATABASES / "demo_body.dbc").read_bytes().replace(b"Door", b"Portal")))
    fleet_command(car.fleet, "publish", "--database", str(document))
    with receiving(car), car.running() as agent:
        status = agent.until_status(lambda status: status["pushes"]["version"] == 2, "the release is in force", 120)
        agent.until_status(delivered, "delivered", 150)
    assert status["pushes"]["chunks"]["missing"] == 0
    assert len(list((car.state / "pushes" / "large").glob("*/[0-9]*"))) > 3
    assert in_lake(car, "SELECT count(*) FROM samples WHERE signal LIKE '%Portal%'") > 0


def _large(database: bytes) -> bytes:
    """Return `database` with 1,900 more messages of eight signals, with comments and texts as carmakers write them."""
    chance = random.Random(5)
    entries, details = [], []
    for number in range(1_900):
        identifier = 0x9000_0000 + number
        name = f"M{chance.getrandbits(48):012x}"
        entries.append(f"BO_ {identifier} {name}: 8 Vector__XXX")
        for place in range(8):
            signal = f"S{place}_{chance.getrandbits(64):016x}"
            entries.append(f' SG_ {signal} : {8 * place}|8@1+ (0.{number + 1},0) [0|0] "" Vector__XXX')
            comment = " ".join(f"{chance.getrandbits(32):08x}" for _ in range(16))
            details.append(f'CM_ SG_ {identifier} {signal} "{comment}";')
            details.append(f'VAL_ {identifier} {signal} 0 "off" 1 "on" 254 "error" 255 "not available" ;')
        entries.append("")
    content = b"\n".join([database, "\n".join([*entries, *details]).encode()])
    assert len(content) > 5_000_000
    return content


def _until_more_chunks(folder: Path) -> None:
    count, deadline_s = len(list(folder.glob("*/[0-9]*"))), time.monotonic() + 60
    while len(list(folder.glob("*/[0-9]*"))) <= count < 7:
        assert time.monotonic() < deadline_s, "no chunk has arrived"
        time.sleep(0.005)
