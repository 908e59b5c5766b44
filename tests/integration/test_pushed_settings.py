"""Settings and databases travel from `fleet publish` through a real broker into a running agent, and into the lake."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.formats.up.columns import Window
from lab.fleet import fleet_command
from lab.receiver import Receiver
from lab.vehicle import Agent
from tests.agent.car import DATABASES, Car, drive, vehicle
from tests.agent.expected import count_samples
from tests.agent.settings.test_compiler import BOMB
from tests.integration.lake import in_lake, receiving

pytestmark = pytest.mark.integration

DEMO = (DATABASES / "demo_body.dbc").read_bytes()
DRIVE_S = 40.0


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path, sources=vehicle(DRIVE_S), pushes="trial_s = 600")


@contextmanager
def driving(car: Car) -> Iterator[tuple[Agent, Receiver]]:
    with receiving(car) as receiver, car.running() as agent:
        agent.until_status(lambda status: status["link"]["state"] == "online", "online")
        yield agent, receiver


def publish(car: Car, receiver: Receiver, *options: str) -> int:
    broker = f"localhost:{receiver_port(receiver)}"
    return int(fleet_command(car.fleet, "publish", *options, "--broker", broker)["targets"])


def receiver_port(receiver: Receiver) -> int:
    return receiver.broker_port


def file(car: Car, name: str, content: bytes) -> str:
    path = car.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return str(path)
