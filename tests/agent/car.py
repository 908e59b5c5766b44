"""A car for tests of the running agent: an enrolled vehicle folder, configuration, databases, and its real process."""

import functools
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from can_dbc.frames import FrameBlock
from fleet.admin.enrol import Model, enrol
from fleet.state.folder import FleetFolder
from lab.mosquitto import free_port
from simulator.frames import frames
from tests.fleet.vehicles import make_fleet

ROOT = Path(__file__).parents[2]
DATABASES = ROOT / "can_dbc" / "dbc"
PATIENCE_S = 30.0
START = "2026-07-01T08:00:00+00:00"
START_NS = 1_782_892_800_000_000_000

CONFIGURATION = """\
{sources}
[bus.can0]
dbc = ["{dbc}/demo_powertrain.dbc"]
[bus.can1]
dbc = ["{dbc}/demo_body.dbc"]
[state]
folder = "state"
runtime_folder = "run"
[telemetry]
{telemetry}
[spool]
{spool}
[uplink]
broker = "localhost:{broker_port}"
ack_timeout_s = 2.0
backoff_min_s = 0.2
backoff_max_s = 1.0
[serve]
port = {serve_port}
[log]
format = "json"
{log}
"""


def vehicle(duration_s: float = 0.0, speed: float = 1.0) -> str:
    """A `[[sources]]` table: the virtual vehicle, always on the same drive."""
    table = f'[[sources]]\nkind = "virtual_vehicle"\nstart = "{START}"\n'
    return f"{table}duration_s = {float(duration_s)}\nspeed = {float(speed)}"


def campaign(name: str = "everything", *, period_ms: int = 1_000, signals: str = "*", **more: Any) -> bytes:
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_ms}}
    document = {"name": name, "collectionScheme": scheme, "signalsToCollect": [{"name": signals}]}
    return json.dumps(document | more).encode()


def drive(seconds: float) -> list[FrameBlock]:
    """What `vehicle(seconds)` puts on the buses."""
    return list(frames(1, START_NS, seconds))


def write_log(file: Path, seconds: float) -> int:
    """A candump log of that drive; returns the number of frames."""
    count = 0
    with file.open("w") as log:
        for block in drive(seconds):
            for row in range(len(block)):
                t_ns, data = int(block.t_ns[row]), bytes(block.data[row, : block.length[row]])
                bus, digits = block.buses[block.bus[row]], 8 if block.flags[row] & 1 else 3
                stamp = f"({t_ns // 10**9}.{t_ns % 10**9 // 1000:06d})"
                log.write(f"{stamp} {bus} {int(block.can_id[row]):0{digits}X}#{data.hex().upper()}\n")
                count += 1
    return count


@functools.cache
def _template() -> Path:
    """A fleet and one vehicle of it, made once: copied by every test."""
    folder = tempfile.TemporaryDirectory(prefix="hu-test-car-")
    root = Path(folder.name)
    enrol(
        make_fleet(root / "fleet"), root / "identity", Model("Aria", "One", "EU", 2026), days=2, now=datetime.now(UTC)
    )
    _KEPT.append(folder)
    return root


_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # removed when the tests end


@dataclass
class Car:
    """`folder` with `agent.toml` and all it names.  Change a setting and `write` again."""

    folder: Path
    fleet: FleetFolder
    sources: str = field(default_factory=vehicle)
    telemetry: str = "increment_s = 0.2"
    spool: str = "reserve_bytes = 0"
    log: str = ""
    broker_port: int = field(default_factory=free_port)
    serve_port: int = field(default_factory=free_port)

    @classmethod
    def make(cls, folder: Path, **settings: Any) -> "Car":
        shutil.copytree(_template() / "fleet", folder / "fleet")
        car = cls(folder / "car", FleetFolder(folder / "fleet"), **settings)
        shutil.copytree(_template() / "identity", car.identity)
        car.campaigns.mkdir()
        (car.campaigns / "everything.json").write_bytes(campaign())
        car.write()
        return car

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def identity(self) -> Path:
        return self.folder / "identity"

    @property
    def campaigns(self) -> Path:
        return self.folder / "campaigns"

    def write(self, **changes: Any) -> Path:
        """Write agent.toml anew, with `changes` of the fields."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.config.write_text(
            CONFIGURATION.format(
                sources=self.sources,
                dbc=DATABASES,
                telemetry=self.telemetry,
                spool=self.spool,
                broker_port=self.broker_port,
                serve_port=self.serve_port,
                log=self.log,
            )
        )
        return self.config

    @contextmanager
    def running(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator["Running"]:
        """`headunit-agent run` (or other arguments), ready; killed at the end where it still runs."""
        process = Running(self, arguments or ("run",), environment or {})
        try:
            process.until(lambda: process.said("agent_ready"), "ready")
            yield process
        finally:
            process.kill()


class Running:
    """The agent as a process of its own."""

    def __init__(self, car: Car, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._port = car.serve_port
        self.log = car.folder / f"agent-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "agent", arguments[0], "--config", str(car.config), *arguments[1:]]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=ROOT
            )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event; whatever is no line of the log is an error."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def said(self, event: str) -> int:
        """How often."""
        return len(self.lines(event))

    def status(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/status")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"not {what}: {self.log.read_text()}"
            time.sleep(0.05)

    def until_status(self, test: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def holds() -> object:
            found.append(self.status())
            return test(found[-1])

        self.until(holds, what)
        return found[-1]


def command(module: str, *arguments: object, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=ROOT,
    )
