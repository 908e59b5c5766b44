"""An app without privileges cannot end telemetry, and cannot pass off its own toggles as those of the fleet."""

import contextlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from agent.serve.listeners import LISTENING_AGAIN, NOT_LISTENING
from lab.fleet import fleet_command
from lab.vehicle import ask, ask_toggle
from tests.agent.car import Car
from tests.agent.pushes.world import toggles
from tests.attack_report import RecordAttack
from tests.integration.lake import in_lake, receiving, samples_in_lake

pytestmark = pytest.mark.integration

APP = 65534 if os.geteuid() == 0 else os.geteuid()
FORGED = json.dumps({"key": "new-navigation", "reason": "STATIC", "variant": "on", "value": "forged"}).encode()


def serve_forged_toggles(port: int, ready: Connection) -> None:
    os.setuid(APP)
    with socket.create_server(("127.0.0.1", port)) as server:
        ready.send(True)
        while True:
            client, _ = server.accept()
            request = b""
            while b"}}" not in request and (more := client.recv(65_536)):
                request += more
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(FORGED)}\r\n\r\n"
            client.sendall(head.encode() + FORGED)
            client.close()


@contextlib.contextmanager
def hostile_app(port: int) -> Iterator[None]:
    """Let a program of another user hold `port` and serve its own toggles, for a `with` block."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    app = context.Process(target=serve_forged_toggles, args=(port, there), daemon=True)
    app.start()
    try:
        assert here.poll(60)
        yield
    finally:
        app.kill()
        app.join()


def events(car: Car, kind: str) -> int:
    """Return how many events of this kind the lake has."""
    return int(in_lake(car, f"SELECT count(*) FROM events WHERE kind = '{kind}'"))


@pytest.mark.attack(
    "6",
    "an app holds the port of toggles before the agent",
    how="An app of another user binds the port first and serves its own toggles.",
    before="telemetry ended",
)
def test_an_app_that_holds_the_port_first_ends_no_telemetry_and_keeps_the_port_no_longer_than_it_runs(
    tmp_path: Path, attack: RecordAttack
) -> None:
    car = Car.make(tmp_path)
    file = tmp_path / "toggles.json"
    file.write_bytes(toggles())
    fleet_command(car.fleet, "publish", "--toggles", str(file))
    agent = car.agent(car.folder / "agent.log")
    with receiving(car), agent.running_now():
        with hostile_app(car.serve_port):
            agent.until_ready()
            assert ask_toggle(car.serve_port, "new-navigation") == "forged"  # the attack is real
            agent.until(lambda: b"new-navigation" in ask(car.socket, "GET", "/status"), "the release is in force")
            assert ask_toggle(car.socket, "new-navigation") is True
            agent.until(lambda: events(car, NOT_LISTENING) and samples_in_lake(car), "its data are in the lake")
            samples_meanwhile = samples_in_lake(car)
        freed_s = time.monotonic()
        agent.until(lambda: agent.said("serving") == 2, "it serves at the port")
        taken_over_s = time.monotonic() - freed_s
        assert ask_toggle(car.serve_port, "new-navigation") is True
        agent.until(lambda: events(car, LISTENING_AGAIN), "the fleet knows")
        assert agent.stop() == 0
    (line,) = agent.lines(NOT_LISTENING)
    assert f"user {APP} holds the port 127.0.0.1:{car.serve_port}" in line["reason"]
    assert "headunit-agent.socket" in line["reason"]
    figure = {"samples_while_held": samples_meanwhile, "before": 0, "taken_over_s": round(taken_over_s, 1)}
    attack(receipt=NOT_LISTENING, figure=figure)
