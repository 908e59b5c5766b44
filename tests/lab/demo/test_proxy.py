"""The road that can be cut: what passes is untouched and counted, and after a cut nothing does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.demo.proxy import Proxy
from lab.mosquitto import free_port


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A broker that says everything twice."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1_000):
                writer.write(data * 2)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def said(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        try:
            return await reader.read(1_000)
        except ConnectionError:
            return b""


def test_bytes_pass_untouched_and_are_counted() -> None:
    async def run() -> None:
        async with echo() as port, Proxy(port) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"\x00\xffhello")
            assert await said(reader) == b"\x00\xffhello" * 2
            assert (proxy.bytes_up, proxy.bytes_down) == (7, 14)
            writer.close()

    asyncio.run(run())


def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_mended() -> None:
    async def run() -> None:
        async with echo() as port, Proxy(port) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"x")
            assert await said(reader) == b"xx"
            await proxy.cut()
            assert await said(reader) == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", proxy.port)
            await proxy.mend()
            again, writing = await asyncio.open_connection("127.0.0.1", proxy.port)
            writing.write(b"y")
            assert await said(again) == b"yy"
            writer.close()
            writing.close()

    asyncio.run(run())


def test_where_the_broker_is_down_the_road_is_too() -> None:
    async def run() -> None:
        async with Proxy(free_port()) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await said(reader) == b""
            writer.close()

    asyncio.run(run())
