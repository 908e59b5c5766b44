"""Opens the two addresses at which the apps of the head unit reach the agent, and keeps other programs away from them.

    address                        who can open it                     how an app knows that the agent answers
    -----------------------------  ----------------------------------  ------------------------------------------------
    the Unix socket `agent.sock`   root, and the agent's user, who     by the path alone; SO_PEERCRED (unix(7)) also
    in the runtime folder          owns the folder                     names the agent's user
    the TCP port of loopback       the program that comes first        only if systemd opened the port, before any app
                                                                       started (systemd/headunit-agent.socket)

systemd passes the port as a descriptor with the name PASSED (sd_listen_fds_with_names(3)).  The names of packet rings
begin with `ring-`, so the two kinds of descriptors are never confused.  systemd and `Descriptors` keep the port open,
so no program can take it while the agent restarts or reloads.  Without such a descriptor, the agent opens the port
itself.
"""

import contextlib
import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import Final, Protocol

from agent.errors import Transient
from agent.system.descriptors import Descriptors
from agent.system.socket_owner import peer_user

PASSED: Final = "serve"
"""The name of the descriptor, which is FileDescriptorName= in systemd/headunit-agent.socket."""
SOCKET: Final = "agent.sock"


class Address(Protocol):
    """An address of the server."""

    @property
    def name(self) -> str:
        """Return the address as text, for the log and for events."""

    def open(self) -> socket.socket:
        """Return a socket that listens at the address.  Raises: Transient, with the remedy."""

    def close(self) -> None:
        """Remove what `open` left outside the process."""


class LoopbackPort:
    """A TCP port of loopback.  Port 0 is any free port."""

    def __init__(self, host: str, port: int, descriptors: Descriptors) -> None:
        self._host = host
        self._port = port
        self._descriptors = descriptors

    @property
    def name(self) -> str:
        """Return the host and the port."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def open(self) -> socket.socket:
        """Return the socket that systemd passed, or else a new one.

        Raises: Transient if another program holds the port, or if the socket from systemd is not a port of loopback.
        """
        passed = self._descriptors.take(PASSED)
        if passed is not None:
            return _checked(socket.socket(fileno=passed))
        try:
            return socket.create_server((self._host, self._port), family=self._family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Transient(
                    f"The agent cannot listen on {self.name}: {_reason(error)}; check serve.host."
                ) from error
            raise Transient(
                f"{self._holder()} holds the port {self.name}, so apps may get false toggles there. End that program, "
                "and enable headunit-agent.socket, so that systemd opens the port before any app starts."
            ) from error

    def close(self) -> None:
        """Do nothing, because a port ends with its socket."""

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self._host else socket.AF_INET

    def _holder(self) -> str:
        nowhere = ("::", 0) if ":" in self._host else ("0.0.0.0", 0)  # noqa: S104  (nothing is bound here)
        try:
            # The kernel looks for a listening socket if no connection has these two ends.
            return f"A program of the user {peer_user(self._family, nowhere, (self._host, self._port))}"
        except Transient:
            return "Another program"


class RuntimeSocket:
    """A Unix socket in the runtime folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET

    @property
    def name(self) -> str:
        """Return the path."""
        return str(self._path)

    def open(self) -> socket.socket:
        """Return a new socket, to which every user may connect.

        The lock of the spool keeps a second agent from replacing the socket of the first one.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)  # an agent that was killed leaves its socket
            listener.bind(self.name)
            self._path.chmod(0o666)
            listener.listen()
        except OSError as error:
            listener.close()
            raise Transient(
                f"The agent cannot listen on {self.name}: {_reason(error)}; check the folder state.runtime_folder."
            ) from error
        return listener

    def close(self) -> None:
        """Remove the socket's file."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def address_of(listener: socket.socket) -> str:
    """Return the address at which `listener` listens, as text."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(address)
    return f"[{address[0]}]:{address[1]}" if listener.family == socket.AF_INET6 else f"{address[0]}:{address[1]}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is the name or an address of loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(passed: socket.socket) -> socket.socket:
    """Return `passed` if it listens on loopback; the server has no passwords, so only the head unit may reach it."""
    tcp = passed.family in (socket.AF_INET, socket.AF_INET6) and passed.type == socket.SOCK_STREAM
    listens = tcp and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listens and is_loopback(passed.getsockname()[0]):
        return passed
    where = address_of(passed) if tcp else "something else"
    passed.close()
    raise Transient(
        f"The socket {PASSED!r} that systemd passes must be a TCP port of loopback, but it is {where}; correct "
        "ListenStream= in headunit-agent.socket."
    )


def _reason(error: OSError) -> str:
    # A path that is too long for a Unix socket is an error without a number.
    return str(error) if error.errno is None else os.strerror(error.errno)
