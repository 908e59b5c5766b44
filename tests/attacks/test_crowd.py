"""An app that holds many connections to a real agent shuts out no other app."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from lab.vehicle import ask
from tests.agent.car import Car
from tests.attack_report import RecordAttack

pytestmark = pytest.mark.integration

HELD = 64
PATIENCE_S = 10.0


@pytest.mark.attack(
    "19",
    "an app holds 64 connections",
    how="An app opens 64 connections to a real agent and says nothing; another one asks for its toggles.",
    before="everyone else was shut out",
)
def test_held_connections_shut_out_no_other_app(tmp_path: Path, attack: RecordAttack) -> None:
    car = Car.make(tmp_path)
    with car.running() as agent, contextlib.ExitStack() as held:
        agent.until_ready()
        for _ in range(HELD):
            held.enter_context(socket.create_connection(("127.0.0.1", car.serve_port), PATIENCE_S))
        started_s = time.monotonic()
        assert b"flags" in ask(car.serve_port, "POST", "/ofrep/v1/evaluate/flags", "{}")
        answered_s = time.monotonic() - started_s
        attack(figure={"answered_s": round(answered_s, 2)})
        assert answered_s < PATIENCE_S
        assert agent.stop() == 0
