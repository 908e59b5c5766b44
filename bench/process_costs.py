"""Reads the memory, the CPU time and the wake-ups of a running process from /proc."""

import os
from pathlib import Path


def sleeps(pid: int) -> int:
    """Return how often threads of the process went to sleep.  Each sleep ends with a wake-up."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
        total += int(line.split()[1])
    return total


def memory_kb(pid: int, key: str) -> int:
    """Return a memory figure of /proc/PID/status in kB; `key` begins its line, such as `VmRSS:`."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def rings_kb(pid: int) -> int:
    """Return the size of the mapped packet rings in kB.

    The rings are memory of the kernel, and the settings determine their size.
    """
    total, ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            ring = "socket:" in line
        elif ring and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds.  Under User Mode Linux, the kernel counts it in ticks."""
    # The program's name, in parentheses, may hold spaces, so fields are counted from the closing parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
