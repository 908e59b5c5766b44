"""Freed memory goes back to the operating system."""

import subprocess
import sys

import pytest

WINDOWS = """
import sys, threading
import numpy as np
from agent.system.memory import return_freed_memory

if sys.argv[1:] == ["give back"]:
    return_freed_memory()

def resident_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1_000

def window():
    arrays = [np.ones(count, np.uint8) for count in [20_000_000, *[200_000] * 100]]
    held.append(np.ones(1_000))  # what stays is behind what goes
    del arrays

held = []
before = resident_mb()
for _ in range(4):
    worker = threading.Thread(target=window)
    worker.start()
    worker.join()
print(resident_mb() - before)
"""


def grown_mb(*arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", WINDOWS, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_what_windows_took_goes_back_to_the_system() -> None:
    if (kept_mb := grown_mb()) < 10:
        pytest.skip("this C library gives back by itself")
    assert grown_mb("give back") < kept_mb / 4
