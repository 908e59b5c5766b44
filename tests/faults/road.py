"""A road that does worse than end: connections stand still, are half open, or crawl."""

import asyncio
import contextlib

from lab.demo.proxy import Proxy

PIECE_BYTES = 1_000


class Road(Proxy):
    """The proxy of the demonstration with more ways to fail; `restore` ends all of them."""

    def __init__(self, broker_port: int) -> None:
        super().__init__(broker_port)
        self._moving = asyncio.Event()
        self._moving.set()
        self._bytes_per_s: float | None = None
        self._half_open: set[asyncio.StreamWriter] = set()

    def stall(self) -> None:
        """Nothing passes any more, and nobody is told; new connections come about and hear nothing."""
        self._moving.clear()

    def half_open(self) -> None:
        """The broker's side of every connection goes, and the client's side does not hear of it.  New ones work."""
        self._half_open = self._near | self._far
        for link in self._far:
            link.transport.abort()

    def slow(self, bytes_per_s: float) -> None:
        """Every connection carries this much in each direction."""
        self._bytes_per_s = bytes_per_s

    async def cut(self) -> None:
        """As the demonstration's."""
        self._moving.set()
        await super().cut()

    async def restore(self) -> None:
        """A good road.  What stood passes; what was half open is reset at last."""
        self._bytes_per_s = None
        self._moving.set()
        for link in self._half_open & self._near:
            link.transport.abort()
        if self._server is None:
            await self.mend()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        await super()._pump(reader, writer, up=up)
        if writer in self._half_open and not up:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(chunk), PIECE_BYTES):
            piece = chunk[start : start + PIECE_BYTES]
            if self._bytes_per_s is not None:
                await asyncio.sleep(len(piece) / self._bytes_per_s)
            await self._moving.wait()
            if writer not in self._half_open:
                await super()._carry(piece, writer)
