"""The receiver's queue serves every vehicle, whatever another one sends."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleet.receiving import fair_queue
from fleet.receiving.allowance import Allowance
from fleet.receiving.fair_queue import GROUP_MESSAGES, VEHICLE_BYTES, VEHICLE_MESSAGES, FairQueue
from fleet.receiving.message import Message


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


def message(vehicle: str, number: int, size: int = 1) -> Message:
    return Message(f"hu/v1/up/0/{vehicle}/live", number.to_bytes(4) + bytes(size))


def numbers(group: list[Message], vehicle: str) -> list[int]:
    return [int.from_bytes(each.payload[:4]) for each in group if each.vehicle == vehicle]


@run
async def test_the_messages_of_a_vehicle_keep_their_order_even_if_some_are_put_back() -> None:
    queue = FairQueue(Allowance(1, 0))
    for number in range(10):
        assert await queue.put(message("a", number))
    group = await queue.take_group()
    assert numbers(group, "a") == list(range(10))
    assert await queue.put(message("a", 10))
    await queue.put_back(group[4:])
    assert numbers(await queue.take_group(), "a") == list(range(4, 11))


@run
async def test_a_vehicle_with_a_message_gets_its_turn_although_another_has_filled_its_share() -> None:
    queue = FairQueue(Allowance(1, 0))
    for number in range(VEHICLE_MESSAGES):
        assert await queue.put(message("flood", number, 100_000))
    assert await queue.put(message("honest", 1))
    assert numbers(await queue.take_group(), "honest") == [1]


@run
async def test_the_vehicle_that_has_cost_least_comes_first() -> None:
    costs = Allowance(10, 0)
    costs.spend("dear", 5, 0)
    queue = FairQueue(costs)
    for number in range(2):
        await queue.put(message("dear", number))
        await queue.put(message("cheap", number))
    group = await queue.take_group()
    assert [each.vehicle for each in group] == ["cheap", "dear", "cheap", "dear"]


@run
async def test_what_exceeds_the_share_of_a_vehicle_is_dropped_and_the_others_are_not_affected() -> None:
    queue = FairQueue(Allowance(1, 0))
    taken = [await queue.put(message("flood", number)) for number in range(VEHICLE_MESSAGES + 5)]
    assert taken == [True] * VEHICLE_MESSAGES + [False] * 5
    assert await queue.put(message("big", 1, VEHICLE_BYTES - 10))
    assert not await queue.put(message("big", 2, 10))
    assert await queue.put(message("honest", 1))


@run
async def test_a_vehicle_without_any_allowance_left_is_dropped() -> None:
    costs = Allowance(1, 0)
    costs.spend("dear", 1, 0)
    queue = FairQueue(costs)
    assert not await queue.put(message("dear", 1))
    assert await queue.put(message("honest", 1))


def test_a_full_queue_makes_the_link_wait_and_goes_on_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "QUEUE_BYTES", 1_000)

    async def test() -> None:
        queue = FairQueue(Allowance(1, 0))
        assert await queue.put(message("a", 1, 2_000))
        waiting = asyncio.create_task(queue.put(message("b", 1)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert numbers(await queue.take_group(), "a") == [1]
        assert await waiting
        assert numbers(await queue.take_group(), "b") == [1]

    asyncio.run(test())


@run
async def test_a_group_is_bounded() -> None:
    queue = FairQueue(Allowance(1, 0))
    for vehicle in range(10):
        for number in range(100):
            assert await queue.put(message(str(vehicle), number))
    assert len(await queue.take_group()) == GROUP_MESSAGES
