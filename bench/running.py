"""The agent as a running process: how it starts, how often it wakes, what memory it holds.

    python -m bench.running FOLDER      inside a machine with vcan; FOLDER as `bench.vehicle.prepare` made it

Capture is by packet ring from two vcan interfaces that carry 4,000 frames/s each (canplayer), collected by the
demonstration's campaigns (config/campaigns), and once more with every signal at its native rate.  Where this machine
has no vcan, User Mode Linux is booted.  Start-up is from `exec` to the first captured frame of each bus, by the time
that the kernel gave the frame, and until the agent works on frames, in turns with `python3 -c "import numpy"`.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.vehicle import BUSES, configure, prepare
from tests.vcan import interfaces, user_mode_linux

ROOT: Final = Path(__file__).parents[1]
STARTS: Final = 3
SETTLE_S: Final = 20.0  # two windows at this load: what it needs at most is then allocated
STEADY_S: Final = 15.0
PORT: Final = 8_099
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
    """The figures, wherever vcan is to be had.  Raises RuntimeError where it is not."""
    prepare(folder, traffic=True)
    if interfaces.available():
        return figures(folder)
    if (reason := user_mode_linux.unavailable()) is not None:
        raise RuntimeError(f"no virtual CAN: {reason}")
    command = [sys.executable, "-m", "bench.running", str(folder)]
    outcome = user_mode_linux.run(command, folder=ROOT, environment={"PYTHONPATH": str(ROOT)}, timeout_s=400)
    if outcome.status != 0:
        raise RuntimeError(f"bench.running failed inside User Mode Linux:\n{outcome.output}\n{outcome.console}")
    found: dict[str, Any] = json.loads(outcome.output.splitlines()[-1])
    return found


def figures(folder: Path) -> dict[str, Any]:
    """The figures, on interfaces of this machine."""
    sources = [f'[[sources]]\nkind = "packet_ring"\nbus = "{bus}"\ninterface = "{bus}"' for bus in BUSES]
    with tempfile.TemporaryDirectory() as name, interfaces.vcan(*BUSES):
        state = Path(name)
        configuration = configure(folder, state, sources, PORT)
        player = subprocess.Popen(
            ["canplayer", "-l", "i", "-I", str(folder / "traffic.log"), *(f"{bus}={bus}" for bus in BUSES)]
        )
        try:
            started = start_up(configuration, state, "source_running", len(BUSES))
            found = {**started, **_steady(configuration, state), "rss_imports_mb": imports_mb()}
            configure(folder, state, sources, PORT, everything=True)
            everything = _steady(configuration, state)
            return found | {name.replace(kind, f"{kind}_everything", 1): everything[name] for kind, name in _EVERYTHING}
        finally:
            player.kill()
            player.wait()


def start_up_here(folder: Path) -> dict[str, float]:
    """Start-up on this machine, without interfaces: until the agent is ready, its plans compiled or read."""
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        found = start_up(configure(folder, state, [], PORT), state, "agent_ready", 1)
    return {f"{key}_here": value for key, value in found.items()}


def start_up(configuration: Path, state: Path, event: str, times: int) -> dict[str, float]:
    """Median seconds from `exec`, without and with plans: to the first frame of each bus, where there are any; until
    `event` has come `times` times in the agent's log.  Importing numpy beside it.
    """
    taken: dict[str, list[float]] = {}
    with _agent(configuration, state) as (_, log):
        _until(log, event, times)
    for _ in range(STARTS):
        started_s = time.time()
        subprocess.run(_NUMPY, check=True)
        taken.setdefault("numpy", []).append(time.time() - started_s)
        for kind in ("", "_cold"):
            if kind:
                shutil.rmtree(state / "plans", ignore_errors=True)
            started_s = time.time()
            with _agent(configuration, state) as (_, log):
                _until(log, event, times)
                taken.setdefault(f"working{kind}", []).append(time.time() - started_s)
                first_s = _first_frames_s(log)
            if first_s:
                taken.setdefault(f"startup{kind}", []).append(max(first_s) - started_s)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    numpy_s = medians.pop("numpy")
    return {f"{name}_s": value for name, value in medians.items()} | {
        f"{name}_ratio_numpy": value / numpy_s for name, value in medians.items()
    }


def imports_mb() -> float:
    """What a process holds that has imported the libraries of the agent and does nothing: the floor of `rss_mb`, but
    for what the agent gives back of it."""
    done = subprocess.run([sys.executable, "-c", _LIBRARIES], check=True, capture_output=True, text=True)
    return round(int(done.stdout.split()[1]) / 1_000, 1)


def _first_frames_s(log: Path) -> list[float]:
    """When the first frame of each bus came, by the kernel's timestamp."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [datetime.fromisoformat(e["first_frame"]).timestamp() for e in events if "first_frame" in e]


def _steady(configuration: Path, state: Path) -> dict[str, float]:
    with _agent(configuration, state) as (pid, log):
        _until(log, "source_running", len(BUSES))
        time.sleep(SETTLE_S)
        started, before, ran = time.perf_counter(), _switches(pid), _ran_s(pid)
        captured, lost = _frames(), _lost()
        resident = []
        while (passed := time.perf_counter() - started) < STEADY_S:
            resident.append(_status(pid, "VmRSS:"))
            time.sleep(0.5)
        frames = _frames() - captured
        return {
            "rss_mb": round(max(resident) / 1_000, 1),
            "rss_peak_mb": round(_status(pid, "VmHWM:") / 1_000, 1),
            "rss_anonymous_mb": round(_status(pid, "RssAnon:") / 1_000, 1),
            "rss_rings_mb": round(_rings(pid) / 1_000, 1),
            "wakeups_per_s": round((_switches(pid) - before) / passed, 1),
            "wakeups_per_s_interface": round((_switches(pid) - before) / passed / len(BUSES), 1),
            "steady_frames_per_s": round(frames / passed),
            "steady_frames_lost": _lost() - lost,
            "steady_cpu_us_per_frame": round((_ran_s(pid) - ran) / max(frames, 1) * 1e6, 1),
        }


@contextmanager
def _agent(configuration: Path, state: Path) -> Iterator[tuple[int, Path]]:
    """An agent at work: its process id and its log."""
    log = state / "agent.log"
    log.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--config", str(configuration)], stdout=output, stderr=output
        )
    try:
        yield process.pid, log
        if process.poll() is not None:
            raise RuntimeError(f"the agent ended:\n{log.read_text()}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _until(log: Path, event: str, times: int) -> None:
    deadline = time.monotonic() + 60
    while log.read_text().count(f'"{event}"') < times:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {event} within 60 s:\n{log.read_text()}")
        time.sleep(0.002)


def _switches(pid: int) -> int:
    """How often a thread of the process went to sleep: each is a later wake-up."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
        total += int(line.split()[1])
    return total


def _status(pid: int, key: str) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def _rings(pid: int) -> int:
    """KB of the mapped packet rings: the kernel's memory, in the size that the settings say."""
    total, ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            ring = "socket:" in line
        elif ring and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def _ran_s(pid: int) -> float:
    """Processor time; under User Mode Linux it is counted in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lost() -> int:
    """Frames that the agent missed, by its own account, in all of its runs."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/status", timeout=30) as answer:
        return int(json.load(answer)["spool"]["lost"].get("bus_overflow", {}).get("frames", 0))


def _frames() -> int:
    """Frames that the interfaces carried."""
    return sum(int(Path(f"/sys/class/net/{bus}/statistics/tx_packets").read_text()) for bus in BUSES)


if __name__ == "__main__":
    print(json.dumps(figures(Path(sys.argv[1]))))
