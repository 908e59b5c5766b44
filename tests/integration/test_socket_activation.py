"""Test the agent as a real process with the port that systemd opened for it, which no app can take."""

import errno
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.serve.addresses import PASSED
from lab.process import PATIENCE_S
from lab.vehicle import Agent, ask, ask_toggle
from tests.agent.car import Car
from tests.agent.pushes.world import toggles
from tests.vcan.supervisor import Supervisor

pytestmark = pytest.mark.integration

TOGGLE = "new-navigation"
REQUEST = f"POST /ofrep/v1/evaluate/flags/{TOGGLE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture
def car(tmp_path: Path) -> Car:
    car = Car.make(tmp_path)
    car.put_in_force({"toggles.json": toggles()})
    return car


def no_app_binds(port: int) -> bool:
    """Try to take the port, as an app would, and return whether another program holds it."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


@contextmanager
def activated(car: Car) -> Iterator[Agent]:
    """Let systemd's own tool open the port; it becomes the agent when the first app connects."""
    variables = [word for name in ("PYTHONPATH", "PYTHONUNBUFFERED") for word in ("-E", name)]
    listen = ["systemd-socket-activate", f"--listen=127.0.0.1:{car.serve_port}", f"--fdname={PASSED}", *variables]
    command = [*listen, sys.executable, "-m", "agent", "run", "--config", str(car.config)]
    agent = Agent(command, car.folder / "agent.log", car.serve_port)
    with agent.running_now():
        yield agent


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="apt-get install systemd")
def test_the_request_that_wakes_the_agent_gets_the_toggle_in_force_and_no_app_ever_binds(car: Car) -> None:
    with activated(car) as agent:
        agent.until(lambda: "Listening on" in agent.output(), "listening")
        assert no_app_binds(car.serve_port)
        with socket.create_connection(("127.0.0.1", car.serve_port), PATIENCE_S) as app:
            app.sendall(REQUEST)
            answer = b"".join(iter(lambda: app.recv(65_536), b""))
        assert b'"value":true' in answer
        (car.folder / "agent.log").write_text("")  # the first lines are those of systemd, and not JSON
        car.write(telemetry="increment_s = 0.3")
        agent.signal(signal.SIGHUP)
        held = []
        agent.until(lambda: held.append(no_app_binds(car.serve_port)) or agent.said("agent_ready"), "built anew")
        assert all(held)
        assert ask_toggle(car.serve_port, TOGGLE) is True
        assert agent.stop() == 0


def test_the_port_survives_a_crash_and_is_told_from_rings_and_foreign_descriptors(car: Car, tmp_path: Path) -> None:
    service = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(car.config)], tmp_path)
    listener = socket.create_server(("127.0.0.1", car.serve_port))
    foreign, ring = os.pipe()
    service.held = {f"ring-160x64-{'0' * 16}-{PASSED}": ring, "other": foreign, PASSED: listener.detach()}
    try:
        for _ in range(2):
            service.start()
            service.wait_ready(PATIENCE_S)
            assert ask_toggle(car.serve_port, TOGGLE) is True
            addresses = json.loads(ask(car.socket, "GET", "/status"))["addresses"]
            assert [each["problem"] for each in addresses] == [None, None]
            service.kill()
            assert no_app_binds(car.serve_port)
        assert list(service.held) == ["other", PASSED]  # the ring has no source, so the agent gave it back
    finally:
        service.end()


def test_a_socket_from_systemd_that_is_open_to_the_network_is_refused_and_telemetry_goes_on(
    car: Car, tmp_path: Path
) -> None:
    service = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(car.config)], tmp_path)
    service.held = {PASSED: socket.create_server(("0.0.0.0", car.serve_port)).detach()}
    try:
        service.start()
        service.wait_ready(PATIENCE_S)
        assert b"correct ListenStream= in headunit-agent.socket" in ask(car.socket, "GET", "/status")
        assert service.stop(PATIENCE_S) == 0
    finally:
        service.end()
