"""Where the programs of a world run: the one thing that a scenario does not know.

A scenario asks a `Machine` to start a program and gets a `Child`.  Today a program runs on this machine, or on this
machine with a wall clock of its own.  User Mode Linux and an emulated head unit are further implementations.  Such a
machine must show the folder of the world to its programs under the same path (as hostfs and 9p do), and forward the
ports of the world's programs to this machine's loopback interface.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lab.clock import write_offset


class Child(Protocol):
    """A program that was started.  `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Return the process id on this machine."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the program runs."""

    def send_signal(self, number: int) -> None:
        """Send a signal; a program that has ended gets none."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status.  Raises: subprocess.TimeoutExpired."""


class Machine(Protocol):
    """Something that runs programs."""

    def python(self, module: str) -> list[str]:
        """Return the command that runs a Python module of the project; arguments are appended to it."""

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
        """Start a program whose output is appended to `log`; `environment` is added to that of the machine."""


class ThisMachine:
    """The machine that the scenario itself runs on."""

    def python(self, module: str) -> list[str]:
        """Return the command of the interpreter that runs the scenario."""
        return [sys.executable, "-m", module]

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
        """Start a child process."""
        # Without PYTHONUNBUFFERED a program that is killed takes the last lines of its log along.
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        with log.open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables)


class ClockedMachine(ThisMachine):
    """This machine with a wall clock of its own, which `move_clock` moves while programs run."""

    def __init__(self, offset_file: Path) -> None:
        self._offset_file = offset_file
        write_offset(offset_file, 0)

    def python(self, module: str) -> list[str]:
        """Return the command that runs a module on this clock."""
        return [sys.executable, "-m", "lab.clock", str(self._offset_file), module]

    def move_clock(self, offset_ns: int) -> None:
        """Set how far the clock is ahead of the true one; running programs see the jump at once."""
        write_offset(self._offset_file, offset_ns)
