"""Reads an MF4 log in a child that is forked off this process, which has imported asammdf already.

A newly started child would need a second for that import.  The child runs the agent's code with a shorter time limit.
"""

import faulthandler
import os
import signal
from pathlib import Path
from typing import BinaryIO, Final

from agent.sources.mf4 import write

_SILENCE_S: Final = 0.5  # of processor time, some fifty times what an input takes


class Forked:
    """Implements the protocol `Child` of `agent.sources.mf4` with a forked process."""

    def __init__(self, path: Path, folder: Path) -> None:
        reading, writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            _run(path, folder, writing)
        os.close(writing)
        self.stdout: BinaryIO = os.fdopen(reading, "rb")
        self._status: int | None = None

    def kill(self) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status


def _run(path: Path, folder: Path, writing: int) -> None:
    """Run the child, and never return into the code of the parent."""
    status = 1
    try:
        faulthandler.disable()  # Crashes of this process are expected, and the parent reports them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with os.fdopen(writing, "wb") as output:
            write(path, folder, output, _SILENCE_S)
        status = 0
    finally:
        os._exit(status)
