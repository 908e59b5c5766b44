"""Measures the running agent: its start-up, memory, CPU time and wake-ups.

    python -m bench.running FOLDER      needs vcan, and a FOLDER that `bench.vehicle.prepare` made

canplayer sends 4,000 frames/s on each of two vcan interfaces, and the agent captures them by packet ring.  In the first
run, the agent collects by the demonstration's campaigns (config/campaigns).  In a second run, the agent collects every
signal at its native rate.  If this machine has no vcan, `measure` boots User Mode Linux.

Start-up begins at `exec`.  One figure ends when each bus has its first captured frame, by the kernel's timestamp.  A
second figure ends when the agent processes frames.  The start-up is measured in turns with `python3 -c "import numpy"`.
`bench/process_costs.py` reads the costs of the running process.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench import process_costs as costs
from bench.vehicle import BUSES, configure, prepare
from lab import can_interfaces, user_mode_linux
from lab.vehicle import Agent, Vehicle

STARTS: Final = 3
SETTLE_S: Final = 20.0
"""The time of two windows at this load.  By then, the agent has allocated as much memory as it needs."""

STEADY_S: Final = 15.0
_LIBRARIES: Final = """
import asyncio, sqlite3, ssl
import aiomqtt, msgspec, numpy, structlog, zstandard
import agent.formats.telemetry_pb2, cryptography.x509, cryptography.hazmat.primitives.hpke
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS:")))
"""
_EVERYTHING: Final = [
    ("rss", "rss_mb"),
    ("rss", "rss_peak_mb"),
    ("steady", "steady_frames_lost"),
    ("steady", "steady_cpu_us_per_frame"),
]
_NUMPY: Final = [sys.executable, "-c", "import numpy"]


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures, measured on this machine or else in User Mode Linux.

    Raises: RuntimeError if neither can make virtual CAN interfaces.
    """
    prepare(folder, traffic=True)
    if can_interfaces.available():
        return figures(folder)
    found: dict[str, Any] = json.loads(user_mode_linux.run_module("bench.running", str(folder), timeout_s=400))
    return found


def figures(folder: Path) -> dict[str, Any]:
    """Return the figures, measured on virtual CAN interfaces of this machine."""
    sources = "\n".join(f'[[sources]]\nkind = "packet_ring"\nbus = "{bus}"\ninterface = "{bus}"' for bus in BUSES)
    with tempfile.TemporaryDirectory() as name, can_interfaces.vcan(*BUSES):
        state = Path(name)
        vehicle = configure(folder, state, sources)
        player = subprocess.Popen(
            ["canplayer", "-l", "i", "-I", str(folder / "traffic.log"), *(f"{bus}={bus}" for bus in BUSES)]
        )
        try:
            started = start_up(vehicle, "source_running", len(BUSES))
            found = {**started, **_steady(vehicle), "rss_imports_mb": imports_mb()}
            everything = _steady(configure(folder, state, sources, everything=True))
            return found | {name.replace(kind, f"{kind}_everything", 1): everything[name] for kind, name in _EVERYTHING}
        finally:
            player.kill()
            player.wait()


def start_up_here(folder: Path) -> dict[str, float]:
    """Return the start-up times until the agent is ready, measured on this machine without interfaces."""
    with tempfile.TemporaryDirectory() as name:
        found = start_up(configure(folder, Path(name), ""), "agent_ready", 1)
        return {f"{key}_here": value for key, value in found.items()}


def start_up(vehicle: Vehicle, event: str, times: int) -> dict[str, float]:
    """Return median start-up times in seconds, and their ratios to the time of importing numpy.

    The agent starts with compiled plans, and without them (`_cold`).  `startup` ends when each bus has its first frame,
    and is missing if there are no frames.  `working` ends when the agent has logged `event` as often as `times` says.
    """
    taken: dict[str, list[float]] = {}
    with _agent(vehicle) as agent:  # This run compiles the plans.
        _until(agent, event, times)
    for _ in range(STARTS):
        started_s = time.time()
        subprocess.run(_NUMPY, check=True)
        taken.setdefault("numpy", []).append(time.time() - started_s)
        for kind in ("", "_cold"):
            if kind:
                shutil.rmtree(vehicle.folder / "plans", ignore_errors=True)
            started_s = time.time()
            with _agent(vehicle) as agent:
                _until(agent, event, times)
                taken.setdefault(f"working{kind}", []).append(time.time() - started_s)
                first_s = _first_frames_s(agent)
            if first_s:
                taken.setdefault(f"startup{kind}", []).append(max(first_s) - started_s)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    numpy_s = medians.pop("numpy")
    return {f"{name}_s": value for name, value in medians.items()} | {
        f"{name}_ratio_numpy": value / numpy_s for name, value in medians.items()
    }


def imports_mb() -> float:
    """Return the resident memory in MB of a process that only imports the agent's libraries.

    The figure is a lower bound for `rss_mb`, except that the agent gives some of this memory back.
    """
    done = subprocess.run([sys.executable, "-c", _LIBRARIES], check=True, capture_output=True, text=True)
    return round(int(done.stdout.split()[1]) / 1_000, 1)


def _first_frames_s(agent: Agent) -> list[float]:
    """Return the Unix time in seconds of the first frame of each bus, by the kernel's timestamp."""
    events = [json.loads(line) for line in agent.output().splitlines()]
    return [datetime.fromisoformat(e["first_frame"]).timestamp() for e in events if "first_frame" in e]


def _steady(vehicle: Vehicle) -> dict[str, float]:
    with _agent(vehicle) as agent:
        pid = agent.pid
        _until(agent, "source_running", len(BUSES))
        time.sleep(SETTLE_S)
        started, before, ran = time.perf_counter(), costs.sleeps(pid), costs.cpu_s(pid)
        captured, lost = _frames(), _lost(agent)
        resident = []
        while (passed := time.perf_counter() - started) < STEADY_S:
            resident.append(costs.memory_kb(pid, "VmRSS:"))
            time.sleep(0.5)
        frames = _frames() - captured
        return {
            "rss_mb": round(max(resident) / 1_000, 1),
            "rss_peak_mb": round(costs.memory_kb(pid, "VmHWM:") / 1_000, 1),
            "rss_anonymous_mb": round(costs.memory_kb(pid, "RssAnon:") / 1_000, 1),
            "rss_rings_mb": round(costs.rings_kb(pid) / 1_000, 1),
            "wakeups_per_s": round((costs.sleeps(pid) - before) / passed, 1),
            "wakeups_per_s_interface": round((costs.sleeps(pid) - before) / passed / len(BUSES), 1),
            "steady_frames_per_s": round(frames / passed),
            "steady_frames_lost": _lost(agent) - lost,
            "steady_cpu_us_per_frame": round((costs.cpu_s(pid) - ran) / max(frames, 1) * 1e6, 1),
        }


@contextmanager
def _agent(vehicle: Vehicle) -> Iterator[Agent]:
    """Run the agent for a `with` block, with a fresh log."""
    log = vehicle.folder / "agent.log"
    log.unlink(missing_ok=True)
    agent = vehicle.agent(log)
    agent.start()
    try:
        yield agent
        agent.check_alive()
    finally:
        agent.stop()


def _until(agent: Agent, event: str, times: int) -> None:
    """Wait until the agent has logged `event` as often as `times` says.

    The log is not decoded, because that would take time from the agent that is measured.

    Raises: RuntimeError after 60 s.
    """
    deadline = time.monotonic() + 60
    while agent.output().count(f'"{event}"') < times:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the agent did not log {event} within 60 s; its log follows:\n{agent.output()}")
        time.sleep(0.002)


def _lost(agent: Agent) -> int:
    """Return the number of frames that the agent has lost in all of its runs, by its own account."""
    return int(agent.status()["spool"]["lost"].get("bus_overflow", {}).get("frames", 0))


def _frames() -> int:
    """Return the number of frames that the interfaces have carried."""
    return sum(int(Path(f"/sys/class/net/{bus}/statistics/tx_packets").read_text()) for bus in BUSES)


if __name__ == "__main__":
    print(json.dumps(figures(Path(sys.argv[1]))))
