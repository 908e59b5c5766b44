"""Test the conversation on one connection, with a simulated broker, uplink and applier."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from agent.formats import topics
from agent.formats.down.chunks import ChunkName
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS
from agent.link.session import Backoff
from agent.runtime.online import Online

VEHICLE = "0b9f6c1e-94a1-4c6e-8f0e-2a7f4f1d3c55"
PUSH, ACK = topics.push(VEHICLE), topics.ack(VEHICLE)

PATIENT = Backoff(9.0, 9.0, 9.0)


class World:
    """Simulates the broker, the uplink and the applier in one object."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.acks: list[bytes] = []
        self.offers: list[bytes] = []
        self.offered_at_s: list[float] = []
        self.asked = 0
        self.answers = False
        self.reason_code = 0
        self.good = True
        self.verifier = asyncio.Event()
        self.verifier.set()

    @property
    def chunks(self) -> "World":
        return self

    def missing(self) -> list[ChunkName]:
        return []

    async def take_chunk(self, _: bytes) -> None: ...

    async def subscribe(self, _: list[str]) -> None: ...

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            yield await self.incoming.get()

    async def publish(self, topic: str, _: bytes) -> int:
        assert topic == topics.sync(VEHICLE)
        self.asked += 1
        if self.answers:
            self.send(PUSH, b"nothing new")
        return self.reason_code

    async def run(self, _: object) -> None:
        await asyncio.Event().wait()

    async def handle_ack(self, payload: bytes) -> None:
        self.acks.append(payload)

    def sync_request(self) -> bytes:
        return b"what is new?"

    async def offer(self, payload: bytes) -> bool:
        self.offers.append(payload)
        self.offered_at_s.append(asyncio.get_running_loop().time())
        await self.verifier.wait()
        return self.good

    def verify(self) -> None:
        self.offers.append(b"|")
        self.verifier.set()

    async def talk(self, seconds: float, *, answer: Backoff = PATIENT) -> Online:
        online = Online(
            VEHICLE,
            cast(Any, self),
            cast(Any, self),
            answer=answer,
            refused=Backoff(0.2, 0.2, 0.2),
        )
        await self.go_on(online, seconds)
        return online

    async def go_on(self, online: Online, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await online(cast(Any, self))
        except TimeoutError:
            pass

    def send(self, topic: str, *payloads: bytes) -> None:
        for payload in payloads:
            self.incoming.put_nowait((topic, payload))


def test_acknowledgements_do_not_wait_for_the_verifier_and_the_newest_bundle_is_next() -> None:
    async def work() -> None:
        world = World()
        world.verifier.clear()
        world.send(PUSH, b"1")
        asyncio.get_running_loop().call_later(0.05, world.send, PUSH, b"2", b"3", b"4")
        asyncio.get_running_loop().call_later(0.06, world.send, ACK, b"ack")
        asyncio.get_running_loop().call_later(0.2, world.verify)
        await world.talk(0.3)
        assert world.acks == [b"ack"]
        assert world.offers == [b"1", b"|", b"4"]

    asyncio.run(work())


def test_after_a_refusal_the_next_bundle_waits_also_over_a_new_connection() -> None:
    async def work() -> None:
        world = World()
        world.good = False
        world.send(PUSH, b"1")
        asyncio.get_running_loop().call_later(0.05, world.send, PUSH, b"2", b"3")
        online = await world.talk(0.1)
        assert world.offers == [b"1"]
        world.good = True
        world.send(PUSH, b"4")
        asyncio.get_running_loop().call_later(0.2, world.send, PUSH, b"5")
        await world.go_on(online, 0.4)
        assert world.offers == [b"1", b"4", b"5"]
        assert world.offered_at_s[1] - world.offered_at_s[0] >= 0.19

    asyncio.run(work())


def test_a_request_without_an_answer_is_asked_again_until_one_comes() -> None:
    async def work() -> None:
        world = World()
        pace = Backoff(floor_s=0.05, base_s=0.05, cap_s=0.05)
        online = await world.talk(0.28, answer=pace)
        assert 3 <= world.asked <= 6
        asked = world.asked
        world.answers = True
        asyncio.get_running_loop().call_later(0.2, world.send, topics.NUDGE, b"")
        await world.go_on(online, 0.4)
        assert world.asked == asked + 2

    asyncio.run(work())


def test_a_nudge_is_answered_at_once_also_while_nobody_was_there_to_be_asked() -> None:
    async def work() -> None:
        world = World()
        world.reason_code = NO_MATCHING_SUBSCRIBERS
        asyncio.get_running_loop().call_later(0.1, world.send, topics.NUDGE, b"")
        await world.talk(0.3)
        assert world.asked == 2

    asyncio.run(work())
