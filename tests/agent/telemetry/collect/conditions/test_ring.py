"""A ring keeps the newest samples of each of its signals, however they come and are taken out."""

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.collect.conditions.ring import Ring

STEPS = st.lists(
    st.tuples(st.just("add"), st.integers(0, 40)) | st.tuples(st.sampled_from(["take", "mark", "split"]), st.just(0)),
    max_size=30,
)


@given(st.integers(1, 50), STEPS)
def test_a_ring_equals_a_bounded_queue(size: int, steps: list[tuple[str, int]]) -> None:
    ring = Ring((3, 7), size)
    newest: deque[int] = deque(maxlen=size)
    unmarked = now = 0
    for step, count in steps:
        if step == "add":
            numbers = np.arange(now, now + count)
            ring.add(numbers, np.stack([numbers * 2, -numbers]))
            newest.extend(numbers.tolist())
            unmarked, now = min(unmarked + count, len(newest)), now + count
        elif step == "take":
            _check(ring.take(), list(newest))
            newest.clear()
            unmarked = 0
        elif step == "mark":
            _check(ring.fresh(), list(newest)[len(newest) - unmarked :])
            ring.checkpointed()
            unmarked = 0
        else:
            first, second = ring.split([(7,), (3,)])
            assert (len(first), len(second)) == (len(newest), len(newest))
            assert first.fresh()[1].tolist() == [[-n for n in list(newest)[len(newest) - unmarked :]]]
            assert second.copy()[1].tolist() == [[n * 2 for n in newest]]
        assert len(ring) == len(newest)
        _check(ring.copy(), list(newest))


def _check(found: tuple[np.ndarray, np.ndarray], numbers: list[int]) -> None:
    times, raw = found
    assert times.tolist() == numbers
    assert raw.tolist() == [[number * 2 for number in numbers], [-number for number in numbers]]


def test_a_ring_takes_no_more_memory_than_it_claims() -> None:
    ring = Ring((0, 1), 1_000)
    for start in range(0, 10_000, 7):
        ring.add(np.arange(start, start + 7), np.zeros((2, 7), np.int64))
    times, raw = ring._t_us, ring._raw
    assert times.nbytes + raw.nbytes == 1_000 * (8 + 2 * 8)
