"""Simulates the mobile network between vehicle and broker: a TCP relay on loopback that counts bytes and can fail.

The relay passes TLS records unchanged.  It therefore counts the bytes on the air, except for the TCP/IP headers.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

CHUNK_BYTES: Final = 65_536
STEP_BYTES: Final = 1_000
"""Bytes that pass before the relay checks for failures again, about one packet."""


class Road:
    """Relays connections from 127.0.0.1:`port` to the broker.  `restore` ends every kind of failure."""

    def __init__(self, broker_port: int) -> None:
        self.port = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._near: set[asyncio.StreamWriter] = set()  # to vehicles
        self._far: set[asyncio.StreamWriter] = set()  # to the broker
        self._half_open: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self._bytes_per_s: float | None = None

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """Reset all connections, and refuse new ones until `mend` or `restore`."""
        # A stalled relay could not end, so the stall ends first.
        self._moving.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        # abort() resets the connection at once.  close() would first deliver the buffered bytes, unlike a real outage.
        for link in (*self._near, *self._far):
            link.transport.abort()
        if self._relays:
            await asyncio.wait(self._relays)

    async def mend(self) -> None:
        """Accept connections again, on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        """Let no bytes pass, without an error on either side.  New connections open, but get no answer."""
        self._moving.clear()

    def half_open(self) -> None:
        """Reset the broker's side of every connection that is open now.  The clients do not notice until `restore`.

        New connections are not affected.
        """
        self._half_open = self._near | self._far
        for link in self._far:
            link.transport.abort()

    def slow(self, bytes_per_s: float) -> None:
        """Limit every connection to `bytes_per_s` in each direction."""
        self._bytes_per_s = bytes_per_s

    async def restore(self) -> None:
        """End all failures: stalled bytes pass, and half-open connections are reset on the client's side as well."""
        self._bytes_per_s = None
        self._moving.set()
        for link in self._half_open & self._near:
            link.transport.abort()
        if self._server is None:
            await self.mend()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        self._near.add(writer)
        try:
            await self._relay(reader, writer)
        finally:
            writer.transport.abort()
            self._near.discard(writer)
            self._relays.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:  # The broker is down, so the client's connection ends as well.
            return
        self._far.add(broker_writer)
        try:
            await asyncio.wait(
                {
                    asyncio.create_task(self._pump(reader, broker_writer, up=True)),
                    asyncio.create_task(self._pump(broker_reader, writer, up=False)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            broker_writer.transport.abort()
            self._far.discard(broker_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if up:
                    self.bytes_up += len(chunk)
                else:
                    self.bytes_down += len(chunk)
                await self._carry(chunk, writer)
        # The end of the broker's side must not end the relay, because a half-open client must not notice it.
        if writer in self._half_open and not up:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(chunk), STEP_BYTES):
            step = chunk[start : start + STEP_BYTES]
            if self._bytes_per_s is not None:
                await asyncio.sleep(len(step) / self._bytes_per_s)
            await self._moving.wait()
            # Bytes on a half-open connection are lost silently, as in a mobile network after a handover.
            if writer not in self._half_open:
                writer.write(step)
                await writer.drain()
