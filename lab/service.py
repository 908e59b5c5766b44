"""Runs an agent as systemd runs its unit: starts it again when it ends, and kills it when the watchdog is not fed."""

import contextlib
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.process import Process

_LOOK_S: Final = 0.1


class Service:
    """Runs `process` for a `with` block.  Pass `environment` to the process when you make it.

    The process is killed with SIGABRT if it is not ready `start_s` after its start, or if it has not fed the watchdog
    for `watchdog_s` after that.  It is started again `restart_s` after it ended.
    """

    def __init__(self, *, watchdog_s: float = 30.0, start_s: float = 30.0, restart_s: float = 5.0) -> None:
        # The path of a Unix socket must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="hu-service-")
        path = Path(self._folder.name) / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(_LOOK_S)
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
        self._watchdog_s = watchdog_s
        self._start_s = start_s
        self._restart_s = restart_s
        self._hangs_at_s = 0.0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: Process | None = None
        self.restarts = 0
        self.hangs = 0

    def runs(self, process: Process) -> "Service":
        """Set the process to run, and return this service."""
        self._process = process
        return self

    def __enter__(self) -> Self:
        assert self._process is not None
        self._hangs_at_s = time.monotonic() + self._start_s
        self._process.start()
        self._thread = threading.Thread(target=self._supervise, args=(self._process,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        assert self._thread is not None and self._process is not None
        self._thread.join()
        self._process.stop()
        self._socket.close()
        self._folder.cleanup()

    def _supervise(self, process: Process) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                if self._socket.recv(4_096).startswith((b"READY=1", b"WATCHDOG=1")):
                    self._hangs_at_s = time.monotonic() + self._watchdog_s
            if not process.running:
                if not self._ending.wait(self._restart_s):
                    self.restarts += 1
                    self._hangs_at_s = time.monotonic() + self._start_s
                    process.start()
            elif time.monotonic() > self._hangs_at_s:
                self.hangs += 1
                process.signal(signal.SIGABRT)
                process.wait()
