"""Starts the programs of a world, in the same way on every kind of machine.

A scenario asks a `Machine` to start a program, and gets a `Child`.  Two kinds exist: the machine on which the scenario
runs ("this machine"), and this machine with a wall clock that can be moved.  User Mode Linux or an emulated head unit
could be added.  Such a machine must show the folder of the world to its programs under the same path (as hostfs and 9p
do).  It must also forward the ports of the world's programs to this machine's loopback interface.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lab.clock import write_offset


class Child(Protocol):
    """A program that was started.  `subprocess.Popen` has this interface."""

    @property
    def pid(self) -> int:
        """Return the process id that the program has on the machine of the scenario."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the program runs."""

    def send_signal(self, number: int) -> None:
        """Send a signal to the program.  Do nothing if the program has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program ends, and return its exit status.

        Raises: subprocess.TimeoutExpired if the program still runs after `timeout` seconds.
        """


class Machine(Protocol):
    """A machine that can start programs, as scenarios see it."""

    def python(self, module: str) -> list[str]:
        """Return the command that runs a Python module of the project.  The caller appends the arguments."""

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
        """Start a program.

        Its output is appended to `log`.  `environment` is added to the machine's environment variables.
        """


class ThisMachine:
    """The machine that the scenario itself runs on."""

    def python(self, module: str) -> list[str]:
        """Return the command that runs `module` with the Python interpreter that runs the scenario."""
        return [sys.executable, "-m", module]

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
        """Start the program as a child process."""
        # Without PYTHONUNBUFFERED, a program that is killed loses the last lines of its log.
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        with log.open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables)


class ClockedMachine(ThisMachine):
    """This machine with a wall clock that `move_clock` moves while programs run (see `lab.clock`)."""

    def __init__(self, offset_file: Path) -> None:
        self._offset_file = offset_file
        write_offset(offset_file, 0)

    def python(self, module: str) -> list[str]:
        """Return the command that runs `module` with the clock that `move_clock` moves."""
        return [sys.executable, "-m", "lab.clock", str(self._offset_file), module]

    def move_clock(self, offset_ns: int) -> None:
        """Set the programs' clock to this machine's clock plus `offset_ns`.  Running programs see the jump at once."""
        write_offset(self._offset_file, offset_ns)
