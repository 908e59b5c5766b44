"""One of our programs as a child process, ended by its process id: for the demonstration and the simulation."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.errors import Permanent

STOP_S = 15.0


class Process:
    """One command as a child process, its output in `log`; started again after a kill with the same command."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the child that was started last."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Start it; its output goes behind what the log holds."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def kill(self) -> None:
        """As a power cut would: SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """In good order: SIGTERM, and SIGKILL after STOP_S.  The exit status; 0 where it was not running."""
        if self._child is None:
            return 0
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()

    def check_alive(self) -> None:
        """Raises Permanent with the end of its log where it ended by itself."""
        if self._child is not None and self._child.poll() is not None:
            raise Permanent(f"the {self.name} ended with status {self._child.returncode}:\n{last_lines(self.log)}")


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
