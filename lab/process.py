"""One program as a child process that can be started, killed and started again."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from agent.errors import Permanent
from lab.machine import Child, Machine, ThisMachine

PATIENCE_S: Final = 30.0
STOP_S: Final = 15.0
_LOOK_S: Final = 0.05


class Process:
    """One command on one machine; every start appends to the same log."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        machine: Machine | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._machine = machine or ThisMachine()
        self._environment = dict(environment or {})
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the last start."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Return whether the program was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the program."""
        self._child = self._machine.start(self._command, self.log, self._environment)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        self._started().send_signal(number)

    def kill(self) -> None:
        """End the program as a power cut would (SIGKILL); nothing happens where it does not run."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()

    def stop(self) -> int:
        """End the program with SIGTERM and return its exit status.

        The program is killed where it has not ended after STOP_S seconds; the status is then that of the kill.
        The status is 0 where the program was never started.
        """
        if self._child is None:
            return 0
        self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(STOP_S)
        # A program that hangs must not keep its ports and folders for the next test.
        except subprocess.TimeoutExpired:
            self.kill()
            return self._child.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until the program ends by itself and return its exit status.  Raises: subprocess.TimeoutExpired."""
        return self._started().wait(timeout_s)

    def check_alive(self) -> None:
        """Raise Permanent, with the end of the log, where the program has ended by itself."""
        if self._child is not None and (status := self._child.poll()) is not None:
            raise Permanent(f"the {self.name} ended with status {status}:\n{last_lines(self.log)}")

    @contextlib.contextmanager
    def running_now(self) -> Iterator[Self]:
        """Start the program for a `with` block, and kill it at the end of the block where it still runs."""
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def output(self) -> str:
        """Return all that the program has written to its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event.  Raises: ValueError where a whole line is not JSON."""
        # A program that is writing may have written half of its last line.
        whole = self.output().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line.get("event") == event]

    def said(self, event: str) -> int:
        """Return how often an event stands in the log."""
        return len(self.lines(event))

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait for a condition.  Raises: Permanent where the program ends before, or where it takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline_s:
                raise Permanent(f"the {self.name}: not {what} within {timeout_s:.0f} s:\n{last_lines(self.log)}")
            time.sleep(_LOOK_S)

    def _started(self) -> Child:
        if self._child is None:
            raise Permanent(f"the {self.name} was not started")
        return self._child


def last_lines(path: Path, count: int = 15) -> str:
    """Return the end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
