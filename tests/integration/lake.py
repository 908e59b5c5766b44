"""Starts broker and receiver for tests of the running agent, and queries the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleet.lake.query import query
from lab.mosquitto import Broker
from lab.receiver import Receiver
from tests.agent.car import Car


@contextmanager
def receiving(car: Car) -> Iterator[Receiver]:
    """Start broker and receiver for a `with` block, at whose end the receiver must stop with status 0."""
    broker = Broker(car.fleet, car.folder / "broker", port=car.broker_port)
    receiver = Receiver(car.fleet, broker.fleet_port, car.folder / "receiver.log")
    earlier = len(receiver.output())
    with broker, receiver.running_now():
        yield receiver
        # A program that is asked to stop before it listens to signals ends with another status.
        receiver.until(lambda: len(receiver.output()) > earlier, "started")
        assert receiver.stop() == 0, receiver.output()


def in_lake(car: Car, sql: str) -> Any:
    """Run a query on the lake, and return the first value of the answer."""
    return query(str(car.fleet.lake), sql).column(0)[0].as_py()


def samples_in_lake(car: Car) -> int:
    """Return how many samples the lake holds."""
    return int(in_lake(car, "SELECT count(*) FROM samples"))
