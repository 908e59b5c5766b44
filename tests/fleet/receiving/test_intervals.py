"""Compare intervals with a set of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fleet.receiving.intervals import Interval, joined, without


def neighbours(number: int, intervals: list[Interval]) -> tuple[Interval | None, Interval | None]:
    before = max((each for each in intervals if each[0] <= number), default=None)
    return before, min((each for each in intervals if each[0] > number), default=None)


@given(numbers=st.lists(st.integers(1, 30), max_size=60))
def test_intervals_hold_the_numbers_that_were_added_and_never_touch(numbers: list[int]) -> None:
    intervals: list[Interval] = []
    added: set[int] = set()
    for number in numbers:
        whole = joined(number, *neighbours(number, intervals))
        assert (whole is None) == (number in added)
        if whole is not None:
            intervals = [each for each in intervals if not whole[0] <= each[0] <= whole[1]]
            intervals = sorted([*intervals, whole])
        added.add(number)
        assert {n for first, last in intervals for n in range(first, last + 1)} == added
        assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(intervals))


@given(first=st.integers(1, 9), length=st.integers(1, 9), data=st.data())
def test_an_interval_without_a_number_holds_all_others(first: int, length: int, data: st.DataObject) -> None:
    interval = (first, first + length - 1)
    number = data.draw(st.integers(*interval))
    left = [n for start, end in without(number, interval) for n in range(start, end + 1)]
    assert left == [n for n in range(first, first + length) if n != number]
