"""Runs a broker that holds a genuine certificate, accepts every client, and then sends what a test tells it to send."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

CONNACK: Final = b"\x20\x03\x00\x00\x00"
PATIENCE_S: Final = 20.0


class HostileBroker:
    """Sends CONNACK and then the chunks of `attack` to each client, one client after the other.

    `taken_bytes` has, for each connection, the number of bytes that left before the client hung up.
    """

    def __init__(self, certificate: Path, key: Path, attack: Iterable[bytes], *, port: int = 0) -> None:
        self._attack = attack
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._stopped = False
        self.port: int = self._listener.getsockname()[1]
        self.taken_bytes: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._listener.close()

    def until_taken(self, connections: int) -> None:
        """Wait until `connections` clients have hung up."""
        deadline_s = time.monotonic() + PATIENCE_S
        while len(self.taken_bytes) < connections:
            assert time.monotonic() < deadline_s, f"{len(self.taken_bytes)} clients of {connections} have hung up"
            time.sleep(0.05)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while not self._stopped:
                plain, _ = self._listener.accept()
                plain.settimeout(PATIENCE_S)
                # The client may hang up at any moment, even within the handshake.
                with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as client:
                    self._attack_one(client)

    def _attack_one(self, client: ssl.SSLSocket) -> None:
        taken_bytes = 0
        try:
            client.recv(4096)  # CONNECT
            client.sendall(CONNACK)
            for chunk in self._attack:
                client.sendall(chunk)
                taken_bytes += len(chunk)
            while client.recv(4096):
                pass
        finally:
            self.taken_bytes.append(taken_bytes)


class Repeated:
    """Yields `first` and then `chunk`, until `total_bytes` are sent.  Each client gets all of it."""

    def __init__(self, first: bytes, chunk: bytes, total_bytes: int) -> None:
        self._first = first
        self._chunk = chunk
        self._count = total_bytes // len(chunk)

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        for _ in range(self._count):
            yield self._chunk
