"""The road between vehicle and broker: a TCP relay on loopback that can be cut, and that counts what passes.

TLS goes through it untouched, so the bytes it counts are those on the air (less TCP/IP headers).
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class Proxy:
    """Relays 127.0.0.1:`port` to the broker.  `cut` drops every connection and refuses new ones until `mend`."""

    def __init__(self, broker_port: int) -> None:
        self.port = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._near: set[asyncio.StreamWriter] = set()  # to vehicles
        self._far: set[asyncio.StreamWriter] = set()  # to the broker
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """The tunnel begins: nothing listens any more, and what was connected is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in (*self._near, *self._far):
            link.transport.abort()
        if self._relays:
            await asyncio.wait(self._relays)

    async def mend(self) -> None:
        """The tunnel ends: the same port listens again."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

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
        except OSError:  # the broker is down just now: so is the road
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

    async def _carry(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(chunk)
        await writer.drain()
