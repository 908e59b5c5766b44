"""Makes cars for tests of the running agent: the lab's vehicle, enrolled, with the demonstration databases."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.store import Store
from agent.pushes.trial import Slots
from can_dbc.frames import EXTENDED, FD, FrameBlock
from fleet.state.folder import FleetFolder
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.process import PATIENCE_S
from lab.vehicle import Agent, Vehicle, collect_everything
from simulator.frames import frames

ROOT = Path(__file__).parents[2]
DATABASES = ROOT / "can_dbc" / "dbc"
START = "2026-07-01T08:00:00+00:00"
START_NS = 1_782_892_800_000_000_000
BUSES = f"""\
[bus.can0]
dbc = ["{DATABASES}/demo_powertrain.dbc"]
[bus.can1]
dbc = ["{DATABASES}/demo_body.dbc"]
"""


def vehicle(duration_s: float = 0.0, speed: float = 1.0) -> str:
    """Return a `[[sources]]` table with the virtual vehicle, which always repeats the same drive."""
    table = f'[[sources]]\nkind = "virtual_vehicle"\nstart = "{START}"\n'
    return f"{table}duration_s = {float(duration_s)}\nspeed = {float(speed)}"


def campaign(name: str = "everything", *, period_ms: int = 1_000, signals: str = "*", **more: Any) -> bytes:
    return json.dumps(collect_everything(period_ms, signals, name) | more).encode()


def drive(seconds: float) -> list[FrameBlock]:
    """Return the frames that `vehicle(seconds)` puts on the buses, in blocks."""
    return list(frames(1, START_NS, seconds))


def write_log(file: Path, seconds: float) -> int:
    """Write the drive of `seconds` as a candump log, and return the number of frames."""
    count = 0
    with file.open("w") as log:
        for block in drive(seconds):
            for row in range(len(block)):
                t_ns, data = int(block.t_ns[row]), bytes(block.data[row, : block.length[row]])
                bus, digits = block.buses[block.bus[row]], 8 if block.flags[row] & EXTENDED else 3
                separator = "##0" if block.flags[row] & FD else "#"
                stamp = f"({t_ns // 10**9}.{t_ns % 10**9 // 1000:06d})"
                log.write(f"{stamp} {bus} {int(block.can_id[row]):0{digits}X}{separator}{data.hex().upper()}\n")
                count += 1
    return count


@functools.cache
def _template() -> Path:
    """Make a fleet with one enrolled vehicle.  The result is cached, and every test copies it."""
    folder = tempfile.TemporaryDirectory(prefix="hu-test-car-")
    root = Path(folder.name)
    enrol_vehicle(make_fleet(root / "fleet", FAST_SUITE), root / "identity")
    _KEPT.append(folder)
    return root


_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # removed when the tests end


class Car(Vehicle):
    """A vehicle of the lab that collects everything from the virtual vehicle.  `fleet` is the folder of its fleet."""

    fleet: FleetFolder

    @classmethod
    def make(cls, folder: Path, **settings: Any) -> "Car":
        """Make an enrolled car in `folder`/car.  `settings` are keyword arguments of the lab's `Vehicle`."""
        defaults = {"sources": vehicle(), "telemetry": "increment_s = 0.2", "spool": "reserve_mb = 0"}
        shutil.copytree(_template() / "fleet", folder / "fleet")
        car = cls(folder / "car", buses=BUSES, **(defaults | settings))
        car.fleet = FleetFolder(folder / "fleet")
        shutil.copytree(_template() / "identity", car.identity)
        car.write_campaigns(collect_everything(1_000))
        car.write()
        return car

    def put_in_force(self, documents: Mapping[str, bytes], *, signed_s: int = 0) -> None:
        """Store a release of the fleet, signed at `signed_s`, as the last known good one, as after its trial."""
        store = Store.open(self.state / "pushes")
        store.commit(Record(slots=Slots(current=store.add_release(Release(7, documents))), time_s=signed_s))

    def start(self, verb: str = "run", *more: str, environment: Mapping[str, str] | None = None) -> Agent:
        """Start `headunit-agent VERB`, with a log of its own."""
        agent = self.agent(self.folder / f"agent-{time.monotonic_ns()}.log", verb, *more, environment=environment)
        agent.start()
        return agent

    @contextmanager
    def running(self, *, environment: Mapping[str, str] | None = None) -> Iterator[Agent]:
        """Start the agent and wait until it is ready.  The agent is killed if it still runs after the `with` block."""
        agent = self.start(environment=environment)
        try:
            agent.until_ready()
            yield agent
        finally:
            agent.kill()


def command(module: str, *arguments: object, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=ROOT,
    )
