"""systemd's notification protocol, sd_notify(3): a datagram to the socket named in the environment.

Spoken directly: the repository's own `systemd/` folder shadows the `systemd` Python module, and a datagram needs no
library.  Outside systemd every call does nothing.
"""

import array
import os
import socket
from collections.abc import Mapping, Sequence


class Notifier:
    """Tells the service manager how the agent is; quiet where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval_s: float | None = int(usec) / 2e6 if usec.isdigit() and mine else None
        """Half of the watchdog's limit, as sd_watchdog_enabled(3) advises; None without a watchdog."""

    def ready(self, status: str) -> None:
        """Start-up (or reload) is complete."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self, now_monotonic_ns: int) -> None:
        """The configuration is read again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_monotonic_ns // 1000}")

    def stopping(self) -> None:
        """The open window is being flushed."""
        self._send("STOPPING=1")

    def watchdog(self, status: str) -> None:
        """The event loop is alive; `status` is one line for `systemctl status`."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def store(self, name: str, descriptor: int) -> None:
        """Keep a duplicate of `descriptor` for the next process, whatever polling it says (FDPOLL, systemd 246)."""
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", (descriptor,))

    def forget(self, name: str) -> None:
        """Keep the descriptor of that name no longer."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, message: str, descriptors: Sequence[int] = ()) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A service manager that restarts just now is no reason to stop capturing.
            try:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sender.sendmsg([message.encode()], rights, 0, address)
            except (ConnectionRefusedError, FileNotFoundError):
                return
