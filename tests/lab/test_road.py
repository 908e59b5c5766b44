"""A road passes and counts bytes unchanged, and each of its ways to fail does what it says."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lab.mosquitto import free_port
from lab.road import Road

Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """Run a server that sends everything back twice, in place of a broker, and yield its port."""

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
        async with echo() as port, Road(port) as road:
            reader, writer = await asyncio.open_connection("127.0.0.1", road.port)
            writer.write(b"\x00\xffhello")
            assert await said(reader) == b"\x00\xffhello" * 2
            assert (road.bytes_up, road.bytes_down) == (7, 14)
            writer.close()

    asyncio.run(run())


def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_mended() -> None:
    async def run() -> None:
        async with echo() as port, Road(port) as road:
            reader, writer = await asyncio.open_connection("127.0.0.1", road.port)
            writer.write(b"x")
            assert await said(reader) == b"xx"
            await road.cut()
            assert await said(reader) == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", road.port)
            await road.mend()
            again, writing = await asyncio.open_connection("127.0.0.1", road.port)
            writing.write(b"y")
            assert await said(again) == b"yy"
            writer.close()
            writing.close()

    asyncio.run(run())


def test_where_the_broker_is_down_the_road_is_too() -> None:
    async def run() -> None:
        async with Road(free_port()) as road:
            reader, writer = await asyncio.open_connection("127.0.0.1", road.port)
            assert await said(reader) == b""
            writer.close()

    asyncio.run(run())


def on_a_road(test: Callable[[Road, Talk], Awaitable[None]]) -> None:
    async def run() -> None:
        async with echo() as port, Road(port) as road:
            talk = await asyncio.open_connection("127.0.0.1", road.port)
            try:
                await test(road, talk)
            finally:
                talk[1].close()

    asyncio.run(run())


async def silent(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read(1_000)


def test_on_a_stalled_road_nothing_passes_until_it_is_restored() -> None:
    async def test(road: Road, talk: Talk) -> None:
        road.stall()
        talk[1].write(b"x")
        await silent(talk[0])
        await road.restore()
        assert await said(talk[0]) == b"xx"

    on_a_road(test)


def test_a_half_open_connection_hears_nothing_and_new_ones_work() -> None:
    async def test(road: Road, talk: Talk) -> None:
        talk[1].write(b"x")
        assert await said(talk[0]) == b"xx"
        road.half_open()
        for _ in range(3):
            talk[1].write(b"lost")
            await silent(talk[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", road.port)
        writer.write(b"y")
        assert await said(reader) == b"yy"
        await road.restore()
        assert await said(talk[0]) == b""
        writer.write(b"z")
        assert await said(reader) == b"zz"
        writer.close()

    on_a_road(test)


def test_a_slow_road_takes_its_time_and_can_be_cut() -> None:
    async def test(road: Road, talk: Talk) -> None:
        road.slow(1_000)
        started = time.monotonic()
        talk[1].write(b"x" * 100)
        assert await said(talk[0]) == b"x" * 200
        assert time.monotonic() - started > 0.25
        talk[1].write(b"x" * 100_000)
        await road.cut()
        await road.restore()
        assert await said(talk[0]) == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", road.port)
        writer.write(b"y")
        assert await said(reader) == b"yy"
        writer.close()

    on_a_road(test)
