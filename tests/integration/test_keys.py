"""Keys and certificates change while a real agent, broker and receiver run, and no sample is lost."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.settings import identity
from fleet.admin.enrol import enrol_again
from fleet.state.registry import Registry
from lab.fleet import fleet_command
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.agent.car import Car
from tests.integration.lake import in_lake, receiving, samples_in_lake

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC)


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def age_certificate(car: Car) -> str:
    """Give the car a certificate of which less than a third of its validity is left, and return the car's pseudonym."""
    (name,) = Registry(car.fleet.vehicles).names()
    shutil.rmtree(car.identity)
    enrol_again(car.fleet, name, car.identity, days=10, now=NOW - timedelta(days=8))
    return name


def delivered_exactly_once(car: Car) -> bool:
    """Deliver what is left in the spool, and return whether all is in the lake exactly once."""
    car.write(sources="")
    with receiving(car), car.running() as agent:
        agent.until_status(
            lambda status: status["link"]["acknowledged"] and not status["spool"]["waiting"], "delivered"
        )
        assert agent.stop() == 0
    return bool(
        in_lake(car, "SELECT count(*) - count(DISTINCT (epoch, seq)) FROM batches") == 0
        and in_lake(car, "SELECT count(*) - count(DISTINCT (vehicle, epoch, seq, row)) FROM samples") == 0
        and fleet_command(car.fleet, "query", "losses") == []
    )


def test_a_running_vehicle_renews_its_certificate_and_key_and_loses_nothing(car: Car) -> None:
    name = age_certificate(car)
    with car.running() as agent:  # batches of the old key wait in the spool
        agent.until_status(lambda status: status["spool"]["waiting"] >= 3, "storing")
        assert agent.stop() == 0
    with receiving(car) as receiver:
        receiver.until_connected()
        with car.running() as agent:
            agent.until(lambda: agent.said("certificate_in_use"), "connected with its new certificate")
            agent.until_status(lambda status: status["spool"]["waiting"] < 3, "delivered")
            seen = samples_in_lake(car)
            agent.until(lambda: samples_in_lake(car) > seen, "delivering batches that the new key signed")
            assert agent.stop() == 0
    renewed, record = car.state / identity.RENEWED, Registry(car.fleet.vehicles).require(name)
    loaded = identity.load(car.identity, renewed=renewed)
    assert loaded.key_file == loaded.certificate_file == renewed
    assert loaded.certificate == record.certificates[0]
    assert len(record.earlier_pems) == 1
    with car.running() as agent, receiving(car):  # the next process uses the new certificate from the start
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        agent.until_status(lambda status: status["spool"]["waiting"] < 3, "delivered")
        assert agent.stop() == 0
        assert not agent.said("certificate_in_use")
    assert delivered_exactly_once(car)


def test_a_revoked_vehicle_cannot_connect_until_it_is_taken_back(car: Car) -> None:
    (name,) = Registry(car.fleet.vehicles).names()
    with receiving(car), car.running() as agent:
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        assert agent.stop() == 0
    fleet_command(car.fleet, "revoke", name)
    with car.running() as agent:
        with receiving(car) as receiver:
            receiver.until_connected(2)
            agent.until_status(lambda status: "revoked" in (status["link"]["problem"] or ""), "refused")
        fleet_command(car.fleet, "keys", "reinstate", name)
        with receiving(car):
            agent.until_status(lambda status: status["link"]["state"] == "online", "online again")
            agent.until(lambda: samples_in_lake(car) > 0, "delivering")
            assert agent.stop() == 0
    assert delivered_exactly_once(car)


def test_broker_and_receiver_get_new_certificates_while_a_vehicle_drives(car: Car) -> None:
    broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, car.folder / "receiver.log")
    before = [path.read_bytes() for path in (car.fleet.broker.certificate, car.fleet.receiver_certificate)]
    with broker, receiver.running_now(), car.running() as agent:
        receiver.until_connected()
        fleet_command(car.fleet, "keys", "renew", "broker")
        fleet_command(car.fleet, "keys", "renew", "receiver")
        broker.stop()
        broker.start()
        receiver.until_connected(2)  # with the old certificate, which the broker still accepts
        fleet_command(car.fleet, "keys", "renew", "receiver")
        broker.stop()
        broker.start()
        receiver.until_connected(3)  # with the new one
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        seen = samples_in_lake(car)
        agent.until(lambda: samples_in_lake(car) > seen, "delivering")
        assert agent.stop() == 0
        assert receiver.stop() == 0
    after = [path.read_bytes() for path in (car.fleet.broker.certificate, car.fleet.receiver_certificate)]
    assert not set(before) & set(after)
    assert delivered_exactly_once(car)
