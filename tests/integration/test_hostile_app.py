"""Test the agent as a real process while an app without privileges asks for the most expensive rules there can be."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from agent.pushes import trial
from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.store import Store
from agent.serve.toggles import EVALUATE
from agent.system.boot import boot_id
from lab.process import PATIENCE_S
from tests.agent.car import Car
from tests.attack_report import RecordAttack

pytestmark = pytest.mark.integration

NUMBERS = list(range(90))
NESTED_LOOPS = {"some": [{"var": "list"}, {"some": [NUMBERS, {"==": [{"var": ""}, "never"]}]}]}
"""A rule over the list of an app.  The document is accepted, because the list may also be short."""
PLAIN = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
DOCUMENT = json.dumps(
    {
        "flags": {"plain": PLAIN}
        | {f"heavy{n}": PLAIN | {"targeting": {"if": [NESTED_LOOPS, "on", "off"]}} for n in "12"}
    }
).encode()
CONTEXT = json.dumps({"context": {"list": [0] * 20_000}})
"""A list with which the rule looks at 1,800,000 elements."""
REQUESTS = 30
ATTACK_S = 8.0
QUIET_S = 3.0
"""The longest time without a sign of life.  The agent gives one every 0.2 s here; the machine may be busy."""


def car_with_toggles(folder: Path) -> Car:
    """Make a car whose release in force has the flags of DOCUMENT."""
    car = Car.make(folder)
    store = Store.open(car.folder / "state" / "pushes")
    release = store.add_release(Release(7, {"toggles.json": DOCUMENT}))
    store.commit(Record(slots=trial.commit(trial.Slots(), release, boot_id())))
    return car


class Watchdog:
    """Listens to the agent as systemd does.

    `longest_s` is the longest time between two signs of life.  `frames` has the first and the last count of frames that
    came with them.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        self.longest_s = 0.0
        self.frames: list[int] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Measure while the `with` block runs."""
        stop = threading.Event()
        listener = threading.Thread(target=self._listen, args=(stop,))
        listener.start()
        try:
            yield
        finally:
            stop.set()
            listener.join()

    def _listen(self, stop: threading.Event) -> None:
        self._socket.settimeout(0.05)
        latest_s = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                message = self._socket.recv(1_000).decode()
                if message.startswith("WATCHDOG=1"):
                    latest_s = time.monotonic()
                    self.frames = [*self.frames[:1], int(message.split()[-2])]
            self.longest_s = max(self.longest_s, time.monotonic() - latest_s)


def ask(car: Car) -> list[dict[str, Any]]:
    """Ask for all flags, and return them, or nothing if the agent stops first."""
    app = http.client.HTTPConnection("127.0.0.1", car.serve_port, timeout=PATIENCE_S)
    try:
        app.request("POST", EVALUATE, CONTEXT)
        found: list[dict[str, Any]] = json.loads(app.getresponse().read())["flags"]
    except (OSError, http.client.HTTPException):
        return []
    else:
        return found
    finally:
        app.close()


@pytest.mark.attack(
    "7",
    "an app asks for the most expensive rule that passes validation",
    how="30 apps ask for rules of nested loops over a list of 20,000 elements.",
    before="no watchdog ping in 36 s",
)
def test_a_rule_that_passes_validation_cannot_stop_the_signs_of_life_or_telemetry(
    tmp_path: Path, attack: RecordAttack
) -> None:
    car, watchdog = car_with_toggles(tmp_path), Watchdog(tmp_path / "notify")
    with car.running(environment=watchdog.environment) as agent, ThreadPoolExecutor(REQUESTS) as apps:
        agent.until_status(lambda status: "plain" in status["toggles"], "serving toggles")
        began_s = time.monotonic()
        with watchdog.listening():
            asked = [apps.submit(ask, car) for _ in range(REQUESTS)]
            wait(asked, ATTACK_S)
        attacked_s = time.monotonic() - began_s
        attack(figure={"longest_s_without_ping": round(watchdog.longest_s, 2)})
        assert watchdog.longest_s < QUIET_S
        assert agent.stop() == 0  # although most requests still wait
        (stopped,) = agent.lines("agent_stopped")
        # The process that was attacked has stopped, and not one that a watchdog has started in its place.
        assert stopped["uptime_s"] > attacked_s - 1
        answers = [answer for answer in (each.result() for each in asked) if answer]
    assert answers
    for plain, *heavy in answers:
        assert plain["value"] is False
        assert all("operations" in flag["errorDetails"] for flag in heavy)
    first, last = watchdog.frames
    assert last > first
