"""Measures the CPU time of capturing with packet ring, candump and python-can, on the same virtual CAN traffic.

    python -m bench.capture             prints JSON; boots User Mode Linux if this machine has no vcan

If the machine has vcan, the cost is the CPU time of the reading process.  User Mode Linux counts that time only in
ticks of 10 ms.  Under User Mode Linux, the cost is therefore the CPU time that this machine spends on the whole kernel
with all its processes, minus the time with the same traffic and no reader.  That cost includes system calls, wake-ups
and the kernel's work for the delivery.

The readers take turns in each round, and medians are taken.  The cost is divided by the number of frames sent, so a
reader that loses frames appears cheaper.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import can

from agent.sources.packet_ring import PacketRingSource
from lab import can_interfaces, user_mode_linux

BUS: Final = "can0"
READY: Final = "ready"
ROUNDS: Final = 5
SECONDS: Final = 4.0
BURST: Final = ("-g", "10", "-c", "45")
"""The arguments of cangen: 45 frames every 10 ms or slightly more, which is about 4,000 frames a second."""

READERS: Final[dict[str, list[str]]] = {
    "none": ["sh", "-c", f"echo {READY}; exec sleep 1000"],
    "ring": [sys.executable, "-m", "bench.capture", "read-ring"],
    "candump": ["sh", "-c", f"echo {READY}; exec candump {BUS} >/dev/null"],
    "python_can": [sys.executable, "-m", "bench.capture", "read-python-can"],
}
SETTLE_S: Final = 1.0
START_S: Final = 10.0
"""The time that a reader may take to start.  Imports are slow under User Mode Linux."""

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def measure() -> dict[str, Any]:
    """Return the figures, measured on this machine or else in User Mode Linux.

    Raises: RuntimeError if neither can make virtual CAN interfaces, or if a reader does not start.
    """
    if can_interfaces.available():
        return _figures(_phases(None))
    meter = _Meter()
    timeout_s = 60 + 2 * ROUNDS * len(READERS) * (START_S + SECONDS)
    inside = json.loads(user_mode_linux.run_module("bench.capture", "phases", timeout_s=timeout_s, watch=meter.look))
    return _figures([(name, meter.used_s[number], frames) for number, (name, _, frames) in enumerate(inside)])


def _figures(phases: Sequence[tuple[str, float, int]]) -> dict[str, Any]:
    """Return the figures for `phases` of (reader, CPU seconds, frames sent).

    Each round has one phase for each of READERS, in their order.  The phase `none` has no reader, so its cost is
    subtracted from the cost of the other phases.
    """
    rounds = [phases[start : start + len(READERS)] for start in range(0, len(phases), len(READERS))]
    costs: dict[str, list[float]] = {name: [] for name in READERS if name != "none"}
    for (_, idle_s, idle_frames), *others in rounds:
        for name, used_s, frames in others:
            costs[name].append((used_s / frames - idle_s / idle_frames) * 1e6)
    median = {name: statistics.median(values) for name, values in costs.items()}
    return {
        "cpu_us_per_frame": {name: round(value, 2) for name, value in median.items()},
        "cpu_us_per_frame_range": {name: [round(min(v), 2), round(max(v), 2)] for name, v in costs.items()},
        "capture_cpu_ratio_candump": round(median["ring"] / median["candump"], 3),
        "capture_cpu_ratio_python_can": round(median["ring"] / median["python_can"], 3),
        "frames_per_s": round(sum(frames for _, _, frames in phases) / len(phases) / SECONDS),
        "user_mode_linux": not can_interfaces.available(),
    }


def _phases(marks: Path | None) -> list[tuple[str, float, int]]:
    """Run all phases, and return (reader, CPU seconds of the reader, frames sent) for each phase.

    If `marks` is a folder, a file in it marks the beginning and the end of each phase for a meter outside.
    """
    found: list[tuple[str, float, int]] = []
    with can_interfaces.vcan(BUS):
        for _ in range(ROUNDS):
            for name, command in READERS.items():
                reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                assert reader.stdout is not None
                if reader.stdout.readline().strip() != READY:
                    raise RuntimeError(f"the reader {name} did not start; run its command by hand: {' '.join(command)}")
                time.sleep(SETTLE_S)
                sender = can_interfaces.cangen(BUS, *BURST)
                time.sleep(0.5)
                number = len(found)
                _mark(marks, f"begin{number}")
                frames, used_s = _sent(), _cpu_s(reader.pid)
                time.sleep(SECONDS)
                found.append((name, _cpu_s(reader.pid) - used_s, _sent() - frames))
                _mark(marks, f"end{number}")
                for process in (sender, reader):
                    process.kill()
                    process.wait()
                reader.stdout.close()
    return found


class _Meter:
    """Measures, from outside, the CPU time of User Mode Linux between the marks that the phases set."""

    def __init__(self) -> None:
        self.used_s: list[float] = []
        self._began_s: float | None = None

    def look(self, session: int, marks: Path) -> None:
        number = len(self.used_s)
        if self._began_s is None:
            if (marks / f"begin{number}").exists():
                self._began_s = _session_cpu_s(session)
        elif (marks / f"end{number}").exists():
            self.used_s.append(_session_cpu_s(session) - self._began_s)
            self._began_s = None


def _mark(marks: Path | None, name: str) -> None:
    if marks is not None:
        (marks / name).touch()
        time.sleep(0.05)  # The meter outside looks every 10 ms.


def _sent() -> int:
    return int(Path(f"/sys/class/net/{BUS}/statistics/tx_packets").read_text())


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds, by the scheduler's count."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _session_cpu_s(session: int) -> float:
    """Return the CPU time in seconds (user and system) of all processes of a session, including ended ones."""
    total = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            total += sum(map(int, fields[11:15]))
    return total * _TICK_S


async def _read_ring() -> None:
    source = PacketRingSource(bus=BUS, interface=BUS, on_loss=lambda _: None)
    print(READY, flush=True)
    async for block in source.blocks():
        source.release(block.first + len(block))


def _read_python_can() -> None:
    with can.Bus(BUS, "socketcan", fd=True) as bus:
        print(READY, flush=True)
        for _ in bus:
            pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read-ring"]:
            asyncio.run(_read_ring())
        case ["read-python-can"]:
            _read_python_can()
        case ["phases"]:
            print(json.dumps(_phases(Path("/mnt"))))
        case _:
            print(json.dumps(measure()))
