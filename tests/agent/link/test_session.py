"""The link's state table is complete, and the link backs off from a broker that fails."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link.session import TABLE, Backoff, Event, Session, State

BACKOFF = Backoff(floor_s=0.5, base_s=1.0, cap_s=60.0, stable_s=30.0)


def drive(*steps: tuple[Event, float], jitter: float = 1.0) -> Session:
    session = Session(BACKOFF)
    for event, now_s in steps:
        session = session.after(event, now_s=now_s, jitter=jitter)
    return session


def failed(times: int) -> Session:
    session = Session(BACKOFF).after(Event.START, now_s=0.0, jitter=1.0)
    for _ in range(times - 1):
        session = session.after(Event.FAILED, now_s=0.0, jitter=1.0).after(Event.WAITED, now_s=0.0, jitter=1.0)
    return session.after(Event.FAILED, now_s=0.0, jitter=1.0)


def test_every_event_out_of_place_is_named() -> None:
    for state, event in itertools.product(State, Event):
        session = Session(BACKOFF, state)
        if (state, event) in TABLE:
            assert session.after(event, now_s=1.0, jitter=0.0).state is TABLE[state, event]
        else:
            with pytest.raises(ValueError, match=f"{event.name} cannot happen in {state.name}"):
                session.after(event, now_s=1.0, jitter=0.0)


def test_the_ceiling_doubles_with_each_failure_up_to_the_cap() -> None:
    assert [failed(n).retry_at_s for n in range(1, 9)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_the_wait_stays_between_floor_and_cap(failures: int, jitter: float) -> None:
    assert BACKOFF.floor_s <= BACKOFF.wait_s(failures, jitter) <= BACKOFF.cap_s


def test_jitter_spreads_the_wait_over_the_whole_range() -> None:
    assert BACKOFF.wait_s(7, 0.0) == 0.5
    assert BACKOFF.wait_s(7, 0.5) == pytest.approx(30.25)


def test_a_link_that_drops_at_once_keeps_its_back_off() -> None:
    session = drive((Event.START, 0), (Event.FAILED, 0), (Event.WAITED, 1), (Event.CONNECTED, 1), (Event.LOST, 30.9))
    assert session.failures == 2
    assert session.retry_at_s == pytest.approx(32.9)


def test_a_stable_time_online_forgives_earlier_failures() -> None:
    session = drive((Event.START, 0), (Event.FAILED, 0), (Event.WAITED, 1), (Event.CONNECTED, 1), (Event.LOST, 31))
    assert session.failures == 1
    assert session.retry_at_s == pytest.approx(32)


def test_a_long_time_connecting_does_not_count_as_stable() -> None:
    session = drive((Event.START, 0), (Event.FAILED, 100), (Event.WAITED, 101), (Event.FAILED, 300))
    assert session.failures == 2


def test_waiting_time_runs_out() -> None:
    session = failed(3)
    assert session.wait_s(1.0) == 3.0
    assert session.wait_s(9.0) == 0.0


def test_stop_forgets_failures() -> None:
    assert failed(5).after(Event.STOP, now_s=0.0, jitter=0.0) == Session(BACKOFF)


@pytest.mark.parametrize(
    "limits",
    [{"floor_s": 0.0}, {"floor_s": 2.0}, {"cap_s": 0.5}, {"stable_s": -1.0}],
)
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="back-off needs"):
        Backoff(**limits)
