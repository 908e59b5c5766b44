"""Test the rate limit of the backlog in virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.uplink.bucket import BURST_S, TokenBucket

RATE = 1_000.0
LARGEST = 3_000


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, LARGEST)), max_size=200))
def test_no_window_of_time_carries_more_than_the_rate(attempts: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(RATE)
    now_s, taken = 0.0, list[tuple[float, int]]()
    for delay_s, size in attempts:
        now_s += delay_s
        if bucket.is_open(now_s):
            bucket.take(size, now_s)
            taken.append((now_s, size))
    for first in range(len(taken)):
        size = 0
        for at_s, more in taken[first:]:
            size += more
            assert size <= RATE * (at_s - taken[first][0] + BURST_S) + LARGEST + 1e-6


@given(st.lists(st.integers(1, LARGEST), min_size=1, max_size=50))
def test_it_opens_when_it_says_and_the_rate_is_used_up(sizes: list[int]) -> None:
    bucket = TokenBucket(RATE)
    now_s = 5.0
    for size in sizes:
        opens_at_s = bucket.opens_at_s(now_s)
        assert now_s <= opens_at_s <= now_s + (LARGEST + 1) / RATE + 1e-6
        now_s = opens_at_s
        assert bucket.is_open(now_s)
        bucket.take(size, now_s)
    assert now_s - 5.0 <= sum(sizes) / RATE + len(sizes) / RATE


def test_without_a_rate_it_is_always_open() -> None:
    bucket = TokenBucket(0)
    bucket.take(10**12, 1.0)
    assert bucket.is_open(1.0)
    assert bucket.opens_at_s(1.0) == 1.0


def test_time_that_does_not_move_on_gives_nothing() -> None:
    bucket = TokenBucket(RATE)
    bucket.take(2_000, 100.0)
    assert not bucket.is_open(100.0)
    assert not bucket.is_open(50.0)


@given(st.floats(0, 1e6), st.floats(1, 1e6), st.integers(0, LARGEST))
def test_another_rate_gives_no_burst_of_the_earlier_one(before: float, after: float, size: int) -> None:
    bucket = TokenBucket(before)
    bucket.take(size, 100.0)
    bucket.set_rate(after, 101.0)
    sent = 0.0
    while bucket.is_open(101.0) and sent <= 2 * after:
        bucket.take(100, 101.0)
        sent += 100
    assert sent <= after * BURST_S + 100
    assert bucket.is_open(101.0 + (size + 200) / after + 1.0)
    bucket.set_rate(0, 102.0)
    assert bucket.is_open(102.0)
