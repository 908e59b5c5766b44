"""Notify systemd of the state of the process, by datagrams to the socket that the environment names (sd_notify(3)).

No library is used, because a datagram is enough.  The repository's folder `systemd/` would also shadow the Python
module `systemd`.
"""

import array
import os
import socket
from collections.abc import Mapping, Sequence


class Notifier:
    """Reports the state of the process to the service manager.  Without a service manager, no method does anything."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        # Child processes inherit the variables; WATCHDOG_PID names the process that they are meant for.
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval_s: float | None = int(usec) / 2e6 if usec.isdigit() and mine else None
        """Seconds between two calls of `watchdog`: half of the limit, as sd_watchdog_enabled(3) advises; None if the
        unit has no watchdog."""

    def ready(self, status: str) -> None:
        """Report that start-up, or a reload, is complete."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self, now_monotonic_ns: int) -> None:
        """Report that the configuration is read again; `ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_monotonic_ns // 1000}")

    def stopping(self) -> None:
        """Report that the process is about to end, before it stores its open windows."""
        self._send("STOPPING=1")

    def watchdog(self, status: str) -> None:
        """Report that the event loop is alive; `systemctl status` shows the line `status`."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def store(self, name: str, descriptor: int) -> None:
        """Ask the service manager to keep a duplicate of `descriptor` for the next process."""
        # Without FDPOLL=0 (systemd 246) the manager drops a descriptor on which poll(2) reports an error, for
        # example a ring whose interface is down.
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", (descriptor,))

    def forget(self, name: str) -> None:
        """Ask the service manager to close the descriptor that it keeps under `name`."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, message: str, descriptors: Sequence[int] = ()) -> None:
        if not self._address:
            return
        # "@" stands for an abstract socket, whose address begins with a zero byte (unix(7)).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A service manager that restarts at this moment is no reason to stop capturing.
            try:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sender.sendmsg([message.encode()], rights, 0, address)
            except (ConnectionRefusedError, FileNotFoundError):
                return
