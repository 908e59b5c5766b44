"""The road's ways to fail are what they say."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.road import Road
from tests.lab.demo.test_proxy import echo, said

Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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
