"""Runs a program as a child process that can be started, killed and started again."""

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

PATIENCE_S: Final = 60.0
STOP_S: Final = 60.0
_LOOK_S: Final = 0.05


class Process:
    """Runs one command on one machine.  Every start appends to the same log."""

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
        """Return the process id of the most recent start.  Raises: Permanent if the program was never started."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Return whether the program is running."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the program, and return at once."""
        self._child = self._machine.start(self._command, self.log, self._environment)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program.  Raises: Permanent if the program was never started."""
        self._started().send_signal(number)

    def kill(self) -> None:
        """Kill the program with SIGKILL, which ends it as suddenly as a power cut.  Do nothing if it does not run."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()

    def stop(self) -> int:
        """Stop the program with SIGTERM, and return its exit status.

        If the program still runs after STOP_S seconds, it is killed, and the status is -9.  If the program was never
        started, the status is 0.
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
        """Wait until the program ends by itself, and return its exit status.

        Raises: subprocess.TimeoutExpired if the program still runs after `timeout_s`.
        """
        return self._started().wait(timeout_s)

    def check_alive(self) -> None:
        """Check that the program has not ended.  Raises: Permanent, with the end of the log, if it has ended."""
        if self._child is not None and (status := self._child.poll()) is not None:
            raise Permanent(f"The {self.name} ended with status {status}. The end of its log:\n{last_lines(self.log)}")

    @contextlib.contextmanager
    def running_now(self) -> Iterator[Self]:
        """Start the program for a `with` block.  At the end of the block, kill the program if it still runs."""
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def output(self) -> str:
        """Return the whole log, which holds the output of all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines whose event is `event`, each parsed as JSON.

        Raises: ValueError if any line is not JSON, except an incomplete last line.
        """
        # The last line is left out while it has no line end, because the program may still be writing it.
        whole = self.output().rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line.get("event") == event]

    def said(self, event: str) -> int:
        """Return how often the program has logged `event`, over all starts."""
        return len(self.lines(event))

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until `condition` returns true.  `what` names the condition in the error message.

        Raises: Permanent if the program ends first, or if `timeout_s` seconds pass first.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline_s:
                raise Permanent(
                    f"The {self.name} did not reach the state {what!r} within {timeout_s:.0f} s. "
                    f"The end of its log:\n{last_lines(self.log)}"
                )
            time.sleep(_LOOK_S)

    def _started(self) -> Child:
        if self._child is None:
            raise Permanent(f"The {self.name} was not started. Call start() first.")
        return self._child


def last_lines(path: Path, count: int = 15) -> str:
    """Return the last `count` lines of the file `path`."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
