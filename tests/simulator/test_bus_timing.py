"""Frames keep their periods, wait for each other, and do not depend on how time is divided into steps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bus_timing import Cycle, carried, frame_us


@given(st.integers(0, 99), st.sampled_from([10_000, 100_000, 1_000_000]), st.lists(st.integers(1, 700_000), max_size=8))
def test_any_cut_of_time_releases_the_same_transmissions(seed: int, period_us: int, cuts: list[int]) -> None:
    cycle = Cycle(seed, 7, period_us)
    edges = [0, *np.cumsum(cuts).tolist()]
    parts = [cycle.released(begin, end) for begin, end in pairwise(edges)]
    index, time_us = cycle.released(0, edges[-1])
    assert [i for part in parts for i in part[0].tolist()] == index.tolist()
    assert [t for part in parts for t in part[1].tolist()] == time_us.tolist()


def test_a_message_keeps_its_period_within_its_jitter() -> None:
    index, time_us = Cycle(1, 2, 10_000).released(0, 60_000_000)
    assert index.tolist() == list(range(6_000))
    late = time_us - index * 10_000
    assert 0 <= late.min() < late.max() < 10_000 + 500
    assert late.max() - late.min() <= 500
    assert np.unique(late).size > 100


def test_messages_have_phases_of_their_own() -> None:
    first = {int(Cycle(1, stream, 100_000).released(0, 200_000)[1][0]) for stream in range(20)}
    assert len(first) == 20


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 400)), min_size=1, max_size=40), st.integers(0, 500))
def test_one_frame_at_a_time_in_order(frames: list[tuple[int, int]], free_us: int) -> None:
    released = np.cumsum([gap for gap, _ in frames])
    durations = [duration for _, duration in frames]
    through, free = [], free_us
    for start, duration in zip(released.tolist(), durations, strict=True):
        free = max(start, free) + duration
        through.append(free)
    assert carried(released, np.array(durations), free_us).tolist() == through


@pytest.mark.parametrize(
    ("length", "extended", "fd", "low", "high"),
    [(8, False, False, 222, 270), (8, True, False, 262, 320), (0, False, False, 94, 120), (64, False, True, 300, 420)],
)
def test_a_frame_takes_as_long_as_on_a_real_bus(length: int, extended: bool, fd: bool, low: int, high: int) -> None:
    assert low <= frame_us(length, extended=extended, fd=fd) <= high
