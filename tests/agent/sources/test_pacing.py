"""Paced replay delivers all frames in order, each when it is due.  The tests run in virtual time."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.pacing import Pacer, paced
from can_dbc.frames import FrameBlock

MS = 1_000_000


def block(t_ms: list[int], first: int = 0) -> FrameBlock:
    count = len(t_ms)
    return FrameBlock(
        np.array(t_ms, np.int64) * MS,
        np.zeros(count, np.uint8),
        np.arange(count, dtype=np.uint32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint8),
        np.zeros((count, 8), np.uint8),
        ("can0",),
        first,
    )


class VirtualTime:
    """A clock that advances only when `sleep` is called."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.sleeps = 0

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.sleeps += 1


def run(
    blocks: Iterator[FrameBlock], time: VirtualTime, *, speed: float, drain_ms: int = 10, consumer_s: float = 0.0
) -> list[tuple[float, FrameBlock]]:
    """Return the blocks with their arrival times in seconds, for a consumer that needs `consumer_s` for each block."""

    async def collect() -> list[tuple[float, FrameBlock]]:
        arrived = []
        async for due in paced(blocks, speed=speed, drain_ms=drain_ms, now=time.now, sleep=time.sleep):
            arrived.append((time.now_s - 1000.0, due))
            time.now_s += consumer_s
        return arrived

    return asyncio.run(collect())


def test_a_frame_comes_at_the_first_tick_that_is_not_before_its_time() -> None:
    arrived = run(iter([block([500, 501, 510, 511, 540])]), VirtualTime(), speed=1)
    assert [(round(at * 1000), due.can_id.tolist()) for at, due in arrived] == [
        (0, [0]),
        (10, [1, 2]),
        (20, [3]),
        (40, [4]),
    ]


def test_speed_divides_the_waiting() -> None:
    arrived = run(iter([block([0, 1000])]), VirtualTime(), speed=50)
    assert arrived[-1][0] == pytest.approx(1.0 / 50)


def test_ticks_run_on_across_blocks() -> None:
    arrived = run(iter([block([0, 5]), block([6, 25], first=2)]), VirtualTime(), speed=1)
    assert [round(at * 1000) for at, _ in arrived] == [0, 10, 10, 30]
    assert [due.first for _, due in arrived] == [0, 1, 2, 3]


def test_time_that_steps_back_neither_waits_nor_reorders() -> None:
    arrived = run(iter([block([100, 120, 90, 119, 130])]), VirtualTime(), speed=1)
    assert [(round(at * 1000), due.can_id.tolist()) for at, due in arrived] == [(0, [0]), (20, [1, 2, 3]), (30, [4])]


def test_a_late_consumer_catches_up_to_absolute_deadlines() -> None:
    time = VirtualTime()
    arrived = run(iter([block(list(range(0, 1001, 10)))]), time, speed=1, consumer_s=0.008)
    assert arrived[-1][0] == pytest.approx(1.0)
    slow = run(iter([block([0, 10, 20, 30, 100])]), VirtualTime(), speed=1, consumer_s=0.02)
    assert [round(at * 1000) for at, _ in slow] == [0, 20, 40, 60, 100]


def test_speed_zero_waits_for_nothing_and_keeps_blocks_whole() -> None:
    time = VirtualTime()
    whole = [block([0, 1000]), block([5_000_000], first=2)]
    arrived = run(iter(whole), time, speed=0)
    assert [due for _, due in arrived] == whole
    assert time.sleeps == 0


def test_speed_zero_lets_other_tasks_run() -> None:
    async def scenario() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async for _ in paced((block([n]) for n in range(20)), speed=0, drain_ms=10):
            pass
        task.cancel()
        return turns

    assert asyncio.run(scenario()) >= 20


def test_an_error_of_the_reader_reaches_the_consumer() -> None:
    def failing() -> Iterator[FrameBlock]:
        yield block([0])
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(failing(), VirtualTime(), speed=1)


@given(
    st.lists(st.lists(st.integers(0, 500), max_size=20), max_size=6),
    st.sampled_from([0.25, 1.0, 7.5]),
    st.integers(1, 100),
)
def test_every_frame_is_due_once_in_order_and_within_one_tick(
    times: list[list[int]], speed: float, drain_ms: int
) -> None:
    pacer = Pacer(speed, drain_ms)
    flat = [t for part in times for t in part]
    due = [(tick, t // MS) for part in times for tick, cut in pacer.cut(block(part)) for t in cut.t_ns.tolist()]
    assert [t for _, t in due] == flat
    ticks = [tick for tick, _ in due]
    assert ticks == sorted(ticks)
    newest = 0
    for tick, t in due:
        newest = max(newest, t - flat[0])
        wall_ms = newest / speed
        assert wall_ms <= tick * drain_ms + 1e-6
        assert tick * drain_ms < wall_ms + drain_ms + 1e-6
