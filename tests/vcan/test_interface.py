"""Test interfaces that appear late, go down, or are removed and made anew, and the events that they log."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import can
import pytest
from structlog.testing import capture_logs

from agent.errors import Permanent
from agent.sources import BusLoss
from agent.sources.packet_ring import PacketRingSource
from lab import can_interfaces

DEADLINE_S = 60


class Reading:
    """Reads a source on `can0`, and collects identifiers, losses and logged events."""

    def __init__(self, logs: list[Any]) -> None:
        self.ids: list[int] = []
        self.losses: list[BusLoss] = []
        self._logs = logs

    @property
    def told(self) -> list[str]:
        return [entry["event"] for entry in self._logs]

    @property
    def reasons(self) -> list[str]:
        return [entry["reason"] for entry in self._logs if "reason" in entry]

    async def run(self) -> None:
        source = PacketRingSource(bus="can0", interface="can0", drain_ms=5, on_loss=self.losses.append)
        async for block in source.blocks():
            self.ids += block.can_id.tolist()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def _reading() -> AsyncIterator[Reading]:
    with capture_logs() as logs:
        reading = Reading(logs)
        task = asyncio.create_task(reading.run())
        try:
            yield reading
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled(), task.exception()


def reading() -> AbstractAsyncContextManager[Reading]:
    return _reading()


def send(can_id: int) -> None:
    with can.Bus("can0", "socketcan") as bus:
        bus.send(can.Message(arbitration_id=can_id, is_extended_id=False))


@pytest.fixture(autouse=True)
def _no_interface_stays() -> Any:
    yield
    with suppress(Exception):
        can_interfaces.remove("can0")


def test_an_interface_that_is_made_later_is_taken_up_when_it_is_up() -> None:
    async def scenario() -> None:
        async with reading() as source:
            await source.until(lambda: source.told == ["bus_waiting"])
            await asyncio.sleep(1.2)
            assert source.reasons == ["there is no interface can0; the agent waits until it is there"]  # logged once
            can_interfaces.add("can0", up=False)
            await source.until(lambda: len(source.reasons) == 2)
            assert "is down; bring it up" in source.reasons[1]
            can_interfaces.ip("link", "set", "can0", "up")
            await source.until(lambda: source.told[-1] == "bus_open")
            send(1)
            await source.until(lambda: source.ids == [1])
            assert not source.losses  # no frame counts as lost before the interface was open

    asyncio.run(scenario())


def test_an_interface_that_was_down_is_read_again_and_the_gap_reported() -> None:
    async def scenario() -> None:
        can_interfaces.add("can0")
        async with reading() as source:
            await source.until(lambda: source.told == ["bus_open"])
            send(1)
            await source.until(lambda: source.ids == [1])
            before_ns = time.time_ns()
            can_interfaces.ip("link", "set", "can0", "down")
            await source.until(lambda: source.told[-1] == "bus_waiting")
            can_interfaces.ip("link", "set", "can0", "up")
            send(2)  # the kernel delivers again before the source has noticed
            await source.until(lambda: source.told[-1] == "bus_open")
            send(3)
            await source.until(lambda: source.ids == [1, 2, 3])
            (gap,) = source.losses
            assert (gap.bus, gap.count, gap.detail) == ("can0", 0, "interface away")
            assert before_ns < gap.first_ns < gap.last_ns < time.time_ns()

    asyncio.run(scenario())


@pytest.mark.parametrize("gone_s", [0.0, 1.0])
def test_an_interface_that_was_removed_and_made_anew_is_read_again(gone_s: float) -> None:
    async def scenario() -> None:
        can_interfaces.add("can0")
        async with reading() as source:
            await source.until(lambda: source.told == ["bus_open"])
            send(1)
            can_interfaces.remove("can0")
            await asyncio.sleep(gone_s)
            can_interfaces.add("can0")
            await source.until(lambda: source.told.count("bus_open") == 2)
            send(2)
            await source.until(lambda: source.ids == [1, 2])
            assert [loss.detail for loss in source.losses] == ["interface away"]

    asyncio.run(scenario())


def test_an_interface_of_another_kind_is_refused() -> None:
    async def scenario() -> None:
        source = PacketRingSource(bus="can0", interface="lo", on_loss=lambda _: None)
        await anext(source.blocks())

    with pytest.raises(Permanent, match="interface lo is not a CAN interface"):
        asyncio.run(scenario())
