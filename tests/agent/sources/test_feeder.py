"""Feeders number buses across all sources, and a source that fails does not stop the others."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from structlog.testing import capture_logs

from agent.errors import Permanent
from agent.sources.feeder import Feeder, State, feed_all
from can_dbc.frames import FrameBlock


def block(buses: tuple[str, ...], *numbers: int) -> FrameBlock:
    count = len(numbers)
    return FrameBlock(
        np.arange(count),
        np.array(numbers, np.uint8),
        np.full(count, 0x100, np.uint32),
        np.zeros(count, np.uint8),
        np.full(count, 8, np.uint8),
        np.zeros((count, 8), np.uint8),
        buses,
    )


class Played:
    """A source that yields a block for each of `numbers`, then raises `error`, waits if `stays` is set, or ends."""

    def __init__(self, name: str, buses: tuple[str, ...], *numbers: int, error: Permanent | None = None) -> None:
        self.name = name
        self.buses = buses
        self.stays = False
        self.rest: FrameBlock | None = None
        self.waiting: str | None = None
        self.closed = False
        self._numbers = numbers
        self._error = error

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        try:
            for number in self._numbers:
                yield block(self.buses, number)
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
            if self.stays:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def test_buses_get_the_numbers_that_all_sources_share() -> None:
    taken: list[tuple[tuple[str, ...], list[int]]] = []

    async def take(fed: FrameBlock) -> None:
        taken.append((fed.buses, fed.bus.tolist()))

    buses = ("can0", "can1", "can2")
    feeder = Feeder(Played("log", ("can2", "can0"), 0, 1), buses, take)
    assert feeder.state is State.OPEN
    asyncio.run(feeder.run())
    assert taken == [(buses, [2]), (buses, [0])]
    assert (feeder.state, feeder.problem) == (State.FINISHED, None)


def test_a_source_that_cannot_deliver_says_why_also_after_it_has_run() -> None:
    async def take(fed: FrameBlock) -> None:
        pass

    async def follow() -> None:
        source = Played("can0", ("can0",), 0)
        source.stays = True
        source.waiting = "there is no interface can0; the agent waits until it is there"
        feeder = Feeder(source, ("can0",), take)
        assert (feeder.state, feeder.problem) == (State.WAITING, source.waiting)
        source.waiting = None
        assert (feeder.state, feeder.problem) == (State.OPEN, None)
        feeding = asyncio.create_task(feeder.run())
        await asyncio.sleep(0.01)
        assert (feeder.state, feeder.problem) == (State.RUNNING, None)
        source.waiting = "interface can0 is down; bring it up: ip link set can0 up"
        assert (feeder.state, feeder.problem) == (State.WAITING, source.waiting)
        feeding.cancel()
        await asyncio.wait({feeding})

    asyncio.run(follow())


def test_a_source_that_fails_takes_no_other_down() -> None:
    taken: list[str] = []

    async def take(fed: FrameBlock) -> None:
        taken.append(fed.buses[fed.bus[0]])

    bad = Played("bad", ("can0",), 0, error=Permanent("drive.log: line 7 is damaged"))
    good = Played("good", ("can1",), *[0] * 20)
    feeders = [Feeder(source, ("can0", "can1"), take) for source in (bad, good)]
    asyncio.run(feed_all(feeders))
    assert [(feeder.state, feeder.problem) for feeder in feeders] == [
        (State.FAILED, "drive.log: line 7 is damaged"),
        (State.FINISHED, None),
    ]
    assert (taken.count("can0"), taken.count("can1")) == (1, 20)


def test_a_feeder_that_is_cancelled_has_closed_its_source() -> None:
    async def run() -> None:
        started = asyncio.Event()

        async def take(_: FrameBlock) -> None:
            started.set()
            await asyncio.Event().wait()

        feeding = asyncio.create_task(Feeder(source, ("can0",), take).run())
        await started.wait()
        feeding.cancel()
        await asyncio.wait({feeding})
        assert source.closed

    source = Played("live", ("can0",), 0)
    asyncio.run(run())


def test_a_feeder_that_waits_for_frames_has_closed_its_source_as_well() -> None:
    async def run() -> None:
        async def take(_: FrameBlock) -> None: ...

        feeder = Feeder(source, ("can0",), take)
        feeding = asyncio.create_task(feeder.run())
        while feeder.state is not State.RUNNING:
            await asyncio.sleep(0)
        feeding.cancel()
        await asyncio.wait({feeding})
        assert source.closed

    source = Played("live", ("can0",), 0)
    source.stays = True
    asyncio.run(run())


def test_what_has_arrived_when_a_feeder_is_cancelled_is_fed_as_well() -> None:
    taken: list[FrameBlock] = []

    async def run() -> None:
        async def take(fed: FrameBlock) -> None:
            taken.append(fed)

        source = Played("live", ("can1",), 0)
        source.stays, source.rest = True, block(("can1",), 0, 0)
        feeding = asyncio.create_task(Feeder(source, ("can0", "can1"), take).run())
        while not taken:
            await asyncio.sleep(0)
        feeding.cancel()
        await asyncio.wait({feeding})
        assert feeding.cancelled()

    asyncio.run(run())
    assert [fed.bus.tolist() for fed in taken] == [[1], [1, 1]]


def test_that_a_source_runs_is_told_with_the_time_of_its_first_frame() -> None:
    async def take(_: FrameBlock) -> None:
        pass

    with capture_logs() as logs:
        asyncio.run(Feeder(Played("log", ("can0",), 0, 0), ("can0",), take).run())
    (running,) = [entry for entry in logs if entry["event"] == "source_running"]
    assert running["first_frame"] == "1970-01-01T00:00:00.000000Z"
