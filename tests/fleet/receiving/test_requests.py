"""Requests for updates are answered once for each vehicle, and never pile up."""

import asyncio

import pytest

from fleet.receiving import requests
from fleet.receiving.message import Message
from fleet.receiving.requests import MOST, MOST_BYTES, Requests


def request(vehicle: str, content: bytes = b"") -> Message:
    return Message(f"hu/v1/sync/{vehicle}", content)


def test_only_the_newest_request_of_a_vehicle_is_answered() -> None:
    waiting = Requests()
    assert waiting.put(request("a", b"old"))
    assert waiting.put(request("b"))
    assert waiting.put(request("a", b"new"))

    async def take() -> list[Message]:
        return [await waiting.take(), await waiting.take()]

    assert asyncio.run(take()) == [request("a", b"new"), request("b")]


def test_a_vehicle_that_asks_again_and_again_is_answered_a_few_times_and_another_always() -> None:
    waiting = Requests()

    async def flood() -> int:
        answered = 0
        for _ in range(MOST * 5):
            if waiting.put(request("flood")):
                await waiting.take()
                answered += 1
        return answered

    assert asyncio.run(flood()) == MOST
    assert waiting.put(request("honest"))


def test_requests_beyond_the_limit_are_dropped_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "WAITING", 2)
    waiting = Requests()
    assert [waiting.put(request(vehicle)) for vehicle in "abca"] == [True, True, False, True]


def test_a_request_for_chunks_does_not_displace_the_request_for_news() -> None:
    waiting = Requests()
    fetch = Message("hu/v1/fetch/a", b"chunks")
    assert waiting.put(request("a"))
    assert waiting.put(fetch)

    async def take() -> list[Message]:
        return [await waiting.take(), await waiting.take()]

    assert asyncio.run(take()) == [request("a"), fetch]


def test_a_vehicle_that_has_been_sent_too_many_bytes_gets_no_more_and_another_does() -> None:
    waiting = Requests()
    waiting.charge_bytes("greedy", MOST_BYTES + 1_000_000)
    assert not waiting.put(request("greedy"))
    assert waiting.put(request("honest"))
