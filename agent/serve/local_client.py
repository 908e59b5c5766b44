"""Connects to the agent by the Unix socket in its runtime folder, where no other program can answer."""

import http.client
import socket
from pathlib import Path


class LocalConnection(http.client.HTTPConnection):
    """An HTTP connection to the Unix socket `path`."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket.  Raises: OSError if no agent listens there."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
