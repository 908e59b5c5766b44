"""Test how large documents are fetched on connections that come and go, with a simulated broker and applier."""

import asyncio
from typing import Any, cast

from agent.formats import topics
from agent.formats.down.chunks import REQUESTED, ChunkName
from agent.link.session import Backoff
from agent.runtime.fetch import WAITING, Fetcher

VEHICLE = "0b9f6c1e-94a1-4c6e-8f0e-2a7f4f1d3c55"
SOON = Backoff(0.05, 0.05, 0.05)
LATE = Backoff(3_600.0, 3_600.0, 3_600.0)
CHUNKS = 10


def name_of(index: int) -> ChunkName:
    return ChunkName("ab" * 32, index)


class World:
    """Simulates the connection, the fleet, the applier and its chunks in one object."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.requests: list[list[int]] = []
        self.completed = 0
        self.wanted = CHUNKS
        self.lost = 0  # how many of the next chunks get lost
        self.connected = True
        self.fetcher = Fetcher(VEHICLE, cast(Any, self), self.complete, answer=SOON, jitter=lambda: 0.5)

    @property
    def chunks(self) -> "World":
        return self

    def missing(self) -> list[ChunkName]:
        return [name_of(index) for index in range(self.wanted) if index not in self.held][:REQUESTED]

    def request(self, chunks: list[ChunkName]) -> bytes:
        return bytes(name.index for name in chunks)

    async def publish(self, topic: str, payload: bytes) -> int:
        assert topic == topics.fetch(VEHICLE)
        self.requests.append(list(payload))
        for index in payload:
            if self.lost:
                self.lost -= 1
            else:
                self.fetcher.hear(bytes([index]))
        return 0

    async def take_chunk(self, payload: bytes) -> ChunkName | None:
        if payload[0] in self.held:
            return None
        self.held.add(payload[0])
        return name_of(payload[0])

    def complete(self) -> None:
        self.completed += 1

    async def run(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.fetcher.run(cast(Any, self))
        except TimeoutError:
            pass


def test_all_chunks_are_fetched_each_once_and_then_the_bundle_is_asked_for_once() -> None:
    async def work() -> None:
        world = World()
        await world.run(0.2)
        assert world.requests == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert world.completed == 1

    asyncio.run(work())


def test_only_chunks_that_got_lost_are_asked_for_again() -> None:
    async def work() -> None:
        world = World()
        world.lost = 2
        await world.run(0.5)
        assert world.requests == [[0, 1, 2, 3], [0, 1, 4, 5], [6, 7, 8, 9]]
        assert world.completed == 1

    asyncio.run(work())


def test_the_next_connection_goes_on_where_the_last_one_ended() -> None:
    async def work() -> None:
        world = World()
        world.held = {0, 1, 2, 3, 4}
        world.lost = 100
        await world.run(0.02)
        world.lost = 0
        await world.run(0.2)
        assert world.requests == [[5, 6, 7, 8], [5, 6, 7, 8], [9]]

    asyncio.run(work())


def test_without_anything_missing_nothing_is_asked_until_a_bundle_names_more() -> None:
    async def work() -> None:
        world = World()
        world.wanted = 0
        running = asyncio.create_task(world.run(0.3))
        await asyncio.sleep(0.05)
        assert (world.requests, world.completed) == ([], 0)
        world.wanted = 2
        world.fetcher.wake()
        await running
        assert (world.requests, world.completed) == ([[0, 1]], 1)

    asyncio.run(work())


def test_chunks_without_end_never_take_more_memory_than_the_limit() -> None:
    async def work() -> None:
        world = World()
        for _ in range(1_000):
            world.fetcher.hear(b"\x00")
        taken = 0

        async def count(payload: bytes) -> None:
            nonlocal taken
            taken += 1

        world.wanted = 0
        world.take_chunk = count  # type: ignore[method-assign,assignment]
        await world.run(0.1)
        assert taken == WAITING

    asyncio.run(work())


def test_only_a_bundle_with_other_documents_ends_the_wait_for_chunks_that_never_come() -> None:
    async def work() -> None:
        world = World()
        world.lost = REQUESTED
        world.fetcher = Fetcher(VEHICLE, cast(Any, world), world.complete, answer=LATE, jitter=lambda: 0.5)
        running = asyncio.create_task(world.run(0.5))
        await asyncio.sleep(0.1)
        world.fetcher.wake()
        await asyncio.sleep(0.1)
        # The chunks may be on their way, so they are not asked for twice.
        assert world.requests == [[0, 1, 2, 3]]
        world.held = {0, 1, 2, 3}
        world.fetcher.wake()
        await running
        assert (world.requests[1:], world.completed) == ([[4, 5, 6, 7], [8, 9]], 1)

    asyncio.run(work())
