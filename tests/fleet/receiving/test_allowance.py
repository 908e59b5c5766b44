"""An allowance bounds what a vehicle uses over any time, and never affects another vehicle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.receiving import allowance
from fleet.receiving.allowance import Allowance

STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100)), max_size=200)


@given(STEPS, st.integers(1, 20), st.floats(0.01, 5))
def test_over_any_time_a_vehicle_takes_at_most_its_allowance_and_what_filled_up(
    steps: list[tuple[str, float]], most: int, per_s: float
) -> None:
    given_out = Allowance(most, per_s)
    now_s = 0.0
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for vehicle, wait_s in steps:
        now_s += wait_s
        if given_out.take(vehicle, now_s):
            taken[vehicle].append(now_s)
    for times in taken.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= most + (times[last] - times[first]) * per_s + 1e-6


def test_a_vehicle_that_has_used_up_its_allowance_does_not_affect_another() -> None:
    given_out = Allowance(2, 0)
    given_out.spend("a", 5, 0)
    assert not given_out.is_left("a", 0)
    assert given_out.is_left("b", 0)
    assert [given_out.take("b", 0) for _ in range(3)] == [True, True, False]


def test_an_allowance_fills_up_again() -> None:
    given_out = Allowance(2, 0.5)
    given_out.spend("a", 10, 0)
    assert given_out.used("a", 10) == 5
    assert not given_out.is_left("a", 16)
    assert given_out.is_left("a", 17)
    assert given_out.used("a", 1000) == 0


def test_the_vehicle_that_was_seen_least_recently_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "REMEMBERED", 2)
    given_out = Allowance(1, 0)
    for vehicle in ("a", "b", "a", "c"):
        given_out.spend(vehicle, 1, 0)
    assert [given_out.used(vehicle, 0) for vehicle in "abc"] == [2, 0, 1]
