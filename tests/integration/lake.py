"""The cloud side for tests of the running agent: broker and receiver as processes, and questions to the lake."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fleet.lake.query import query
from lab.mosquitto import Broker
from tests.agent.car import PATIENCE_S, Car
from tests.integration.test_receiver import ReceiverProcess


@contextmanager
def receiving(car: Car) -> Iterator[ReceiverProcess]:
    """Broker and receiver."""
    with Broker(car.fleet, car.folder / "broker", port=car.broker_port):
        receiver = ReceiverProcess(car.fleet, car.broker_port, car.folder / "receiver.log")
        receiver.start()
        try:
            yield receiver
        finally:
            assert receiver.end() == 0


def wait_for(condition: Callable[[], object], receiver: ReceiverProcess) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, receiver.said()
        time.sleep(0.05)


def in_lake(car: Car, sql: str) -> Any:
    """The first value of the answer."""
    return query(str(car.fleet.lake), sql).column(0)[0].as_py()


def samples_in_lake(car: Car) -> int:
    return int(in_lake(car, "SELECT count(*) FROM samples"))
