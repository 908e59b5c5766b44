"""Replaces systemd: keeps a service's descriptors (FDSTORE), and hands them to the next process."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# The descriptors are renumbered from 3 on.  LISTEN_PID is the pid of the shell, which exec keeps.
_EXEC: Final = 'n=3; for fd in $HELD; do eval "exec $n<&$fd $fd<&-"; n=$((n+1)); done; export LISTEN_PID=$$; exec "$@"'


class Supervisor:
    """Starts `command` repeatedly, each time with the descriptors that the processes before it have stored."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = list(command)
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._changed = threading.Condition()
        self._ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self.held: dict[str, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self) -> None:
        self._ready = False
        with self._changed:
            held = dict(self.held)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "HELD": " ".join(str(descriptor) for descriptor in held.values()),
            "LISTEN_FDS": str(len(held)),
            "LISTEN_FDNAMES": ":".join(held),
        }
        with (self._folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", _EXEC, "-", *self._command],
                env=environment,
                pass_fds=tuple(held.values()),
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, timeout_s: float) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._ready, timeout_s), self.log

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        self._process.kill()
        assert self._process.wait() == -signal.SIGKILL

    def cut_power(self) -> None:
        """Kill the process, and close all descriptors that this service manager keeps."""
        self.kill()
        self.forget()

    def forget(self) -> None:
        """Close all descriptors that this service manager keeps, as a machine does that is switched off."""
        with self._changed:
            for descriptor in self.held.values():
                os.close(descriptor)
            self.held.clear()

    def wait_held(self, count: int, timeout_s: float) -> None:
        """Wait until this service manager keeps `count` descriptors."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.held) >= count, timeout_s), self.log

    def stop(self, timeout_s: float) -> int:
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # faulthandler makes the process write where each of its threads is.
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
            raise AssertionError(f"the service has not ended after {timeout_s:.0f} s:\n{self.log}") from None

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for descriptor in self.held.values():
            os.close(descriptor)

    @property
    def log(self) -> str:
        return (self._folder / "service.log").read_text()[-4_000:]

    def _listen(self) -> None:
        while True:
            content, descriptors, _, _ = socket.recv_fds(self._socket, 4_096, 4)
            fields = dict(line.split("=", 1) for line in content.decode().splitlines())
            with self._changed:
                self._ready |= fields.get("READY") == "1"
                if fields.get("FDSTORE") == "1":
                    assert fields["FDPOLL"] == "0"  # with polling, systemd drops the ring of an interface that is down
                    # High numbers let the shell renumber the descriptors from 3 on without a collision.
                    high = [_raised(descriptor) for descriptor in descriptors]
                    self.held[fields["FDNAME"]] = high[0]
                if fields.get("FDSTOREREMOVE") == "1":
                    os.close(self.held.pop(fields["FDNAME"]))
                self._changed.notify_all()


def _raised(descriptor: int) -> int:
    import fcntl

    raised = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(descriptor)
    return raised


def transmitted(interface: str) -> int:
    """Return how many frames an interface has transmitted."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_packets").read_text())


def settled(interface: str) -> int:
    """Wait until an interface transmits nothing more, and return how many frames it has transmitted."""
    before = -1
    while before != (before := transmitted(interface)):
        time.sleep(0.1)
    return before
