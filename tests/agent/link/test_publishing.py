"""Test publishing over a simulated link: room in flight, PUBACKs, callers that cancel, and links that fail."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.errors import Transient
from agent.link.publishing import Message, Publishing


class Link:
    """A link that records messages.  `overdue` lists the (name, timeout) for which the connection was given up."""

    def __init__(self, receive_maximum: int) -> None:
        self.sent: list[bytes] = []
        self.up = True
        self.overdue: list[tuple[str, float]] = []
        self.publishing = Publishing(asyncio.get_running_loop(), self._send, self._give_up)
        self.publishing.receive_maximum = receive_maximum

    def publish(self, payload: bytes, timeout_s: float = 30.0) -> "asyncio.Future[int]":
        return self.publishing.publish("up", payload, timeout_s)

    def _send(self, message: Message) -> int:
        if not self.up:
            raise Transient("lost")
        self.sent.append(message.payload)
        return len(self.sent)

    def _give_up(self, name: str, timeout_s: float) -> None:
        self.up = False
        self.overdue.append((name, timeout_s))
        self.publishing.fail(Transient(f"no {name}"))


def play(work: Callable[[Link], Awaitable[None]], receive_maximum: int = 2) -> None:
    async def run() -> None:
        async with asyncio.timeout(5):
            link = Link(receive_maximum)
            await work(link)
            link.publishing.close()

    asyncio.run(run())


def test_no_more_than_receive_maximum_are_in_flight_and_the_oldest_is_next() -> None:
    async def work(link: Link) -> None:
        first, second, *_ = [link.publish(payload) for payload in (b"1", b"2", b"3", b"4")]
        assert link.sent == [b"1", b"2"]
        message = link.publishing.take(2)
        assert message is not None
        assert message.answer is second
        assert link.sent == [b"1", b"2", b"3"]
        assert not first.done()

    play(work)


def test_a_message_whose_caller_gave_up_in_the_queue_is_never_sent() -> None:
    async def work(link: Link) -> None:
        answers = [link.publish(payload) for payload in (b"1", b"2", b"3")]
        answers[1].cancel()
        link.publishing.take(1)
        assert link.sent == [b"1", b"3"]

    play(work, receive_maximum=1)


def test_a_message_whose_caller_gave_up_in_flight_keeps_its_place_until_its_puback() -> None:
    async def work(link: Link) -> None:
        link.publish(b"1").cancel()
        link.publish(b"2")
        assert link.sent == [b"1"]
        assert link.publishing.take(1) is None
        assert link.sent == [b"1", b"2"]

    play(work, receive_maximum=1)


def test_a_puback_for_nothing_in_flight_makes_no_room() -> None:
    async def work(link: Link) -> None:
        link.publish(b"1")
        link.publish(b"2")
        assert link.publishing.take(7) is None
        assert link.sent == [b"1"]

    play(work, receive_maximum=1)


def test_the_connection_is_given_up_for_the_puback_that_is_overdue_first_not_for_the_oldest() -> None:
    async def work(link: Link) -> None:
        patient, hasty, queued = link.publish(b"1"), link.publish(b"2", 0.01), link.publish(b"3")
        for answer in (patient, hasty, queued):
            with pytest.raises(Transient, match="no PUBACK for up"):
                await answer
        assert link.overdue == [("PUBACK for up", 0.01)]

    play(work)


def test_a_puback_in_time_leaves_the_timer_to_the_next_message() -> None:
    async def work(link: Link) -> None:
        link.publish(b"1", 0.01)
        late = link.publish(b"2", 0.05)
        assert link.publishing.take(1) is not None
        with pytest.raises(Transient):
            await late
        assert link.overdue == [("PUBACK for up", 0.05)]

    play(work)


def test_without_a_connection_each_message_fails_at_once() -> None:
    async def work(link: Link) -> None:
        link.publish(b"1")
        queued = link.publish(b"2")
        link.up = False
        link.publishing.take(1)
        for answer in (queued, link.publish(b"3")):
            with pytest.raises(Transient, match="lost"):
                await answer

    play(work, receive_maximum=1)


def test_a_connection_that_ends_fails_what_is_in_flight_and_what_is_queued() -> None:
    async def work(link: Link) -> None:
        answers = [link.publish(payload) for payload in (b"1", b"2", b"3")]
        link.publishing.fail(Transient("gone"))
        results = await asyncio.gather(*answers, return_exceptions=True)
        assert [str(result) for result in results] == ["gone"] * 3
        assert link.publishing.take(1) is None

    play(work)
