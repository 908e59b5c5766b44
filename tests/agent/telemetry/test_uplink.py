"""What the uplink sends next, in virtual time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.telemetry.schedule import LANES, MAX_HELD, MAX_WANTED, Pace, Schedule
from agent.telemetry.spool_index import Entry

PACE = Pace(in_flight=4, ack_timeout_s=10.0, patience_cap_s=80.0, refusal=Backoff(1.0, 2.0, 60.0))
NOT_AUTHORISED = 0x87
TOO_LARGE = 0x95


def entry(seq: int, lane: Lane = Lane.LIVE) -> Entry:
    return Entry(seq, "e", seq, lane, 0, "", 100, b"", 0, None, None)


def sent(*seqs: int, at_s: float = 0.0) -> Schedule:
    schedule = Schedule(PACE)
    for seq in seqs:
        schedule.send(entry(seq), at_s)
        schedule.published(entry(seq), at_s)
    return schedule


def overdue(schedule: Schedule, now_s: float) -> list[int]:
    """What is sent again now, as the shell would do it."""
    again = schedule.take_overdue(now_s)
    for late in again:
        schedule.send(late, now_s)
        schedule.published(late, now_s)
    return [late.seq for late in again]


def test_the_window_bounds_what_is_unacknowledged() -> None:
    schedule = sent(1, 2, 3)
    assert schedule.room() == 1
    assert schedule.busy(0.0) == {("e", 1), ("e", 2), ("e", 3)}
    schedule.acknowledged([("e", 2)], 1.0)
    assert schedule.room() == 2


def test_events_go_first_then_live_then_backlog() -> None:
    assert Schedule(PACE).lanes(0.0) == (Lane.EVENTS, Lane.LIVE, Lane.BACKLOG)


def test_an_acknowledgement_is_due_from_the_puback_on() -> None:
    schedule = Schedule(PACE)
    schedule.send(entry(1), 0.0)
    assert schedule.wake_at_s(0.0) is None  # the connection bounds how long a publish may take
    assert overdue(schedule, 1_000.0) == []
    schedule.published(entry(1), 100.0)
    assert schedule.wake_at_s(100.0) == 110.0
    assert overdue(schedule, 109.9) == []
    assert overdue(schedule, 110.0) == [1]


def test_one_lost_acknowledgement_costs_one_repeat_while_others_arrive() -> None:
    schedule = sent(1, 2)
    schedule.acknowledged([("e", 2)], 1.0)
    assert overdue(schedule, 10.0) == [1]
    schedule.send(entry(3), 25.0)
    schedule.published(entry(3), 25.0)
    schedule.acknowledged([("e", 3)], 26.0)
    assert overdue(schedule, 29.9) == []
    assert overdue(schedule, 30.0) == [1]  # twice the patience each time


def test_a_receiver_that_is_away_is_probed_with_one_batch_at_growing_intervals() -> None:
    schedule = sent(1, 2, 3, 4)
    probes = []
    now_s = 0.0
    while now_s < 400.0:
        wake_at_s = schedule.wake_at_s(now_s)
        assert wake_at_s is not None
        assert wake_at_s > now_s  # never a hot loop
        now_s = wake_at_s
        again = overdue(schedule, now_s)
        assert len(again) <= 1
        probes += [now_s] * len(again)
    assert probes == [10.0, 20.0, 40.0, 80.0, 160.0, 240.0, 320.0, 400.0]


def test_the_first_acknowledgement_ends_probing() -> None:
    schedule = sent(1, 2, 3, 4)
    assert overdue(schedule, 10.0) == [1]
    schedule.acknowledged([("e", 1)], 11.0)
    assert overdue(schedule, 11.0) == [2, 3, 4]


def test_refusals_of_a_topic_pause_its_lane_longer_each_time() -> None:
    schedule = Schedule(PACE)
    now_s = 0.0
    waits = []
    for _ in range(7):
        schedule.send(entry(1), now_s)
        waits.append(schedule.refused(entry(1), NOT_AUTHORISED, now_s, 1.0))
        assert schedule.lanes(now_s) == (Lane.EVENTS, Lane.BACKLOG)
        assert schedule.room() == 4
        assert schedule.wake_at_s(now_s) == now_s + waits[-1]
        now_s += waits[-1]
        assert schedule.lanes(now_s) == LANES
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    schedule.send(entry(1), now_s)
    schedule.published(entry(1), now_s)
    assert schedule.refused(entry(2), NOT_AUTHORISED, now_s, 1.0) == 2.0


def test_a_burst_of_refusals_counts_once() -> None:
    schedule = Schedule(PACE)
    for seq in range(4):
        schedule.send(entry(seq), 0.0)
    assert [schedule.refused(entry(seq), NOT_AUTHORISED, 0.0, 1.0) for seq in range(4)] == [2.0] * 4


def test_a_batch_that_is_too_large_waits_alone() -> None:
    schedule = Schedule(PACE)
    schedule.send(entry(1), 0.0)
    assert schedule.refused(entry(1), TOO_LARGE, 0.0, 1.0) == 60.0
    assert schedule.lanes(0.0) == LANES
    assert schedule.busy(59.9) == {("e", 1)}
    assert schedule.busy(60.0) == set()


def test_many_batches_that_are_too_large_pause_the_lane_instead_of_filling_memory() -> None:
    schedule = Schedule(PACE)
    for seq in range(MAX_HELD + 10):
        schedule.refused(entry(seq), TOO_LARGE, 0.0, 1.0)
    assert len(schedule.busy(0.0)) == MAX_HELD
    assert Lane.LIVE not in schedule.lanes(0.0)


def test_batches_of_a_paused_lane_are_not_repeated_meanwhile() -> None:
    schedule = sent(1, 2)
    schedule.acknowledged([], 1.0)
    schedule.pause(Lane.LIVE, 9.0, 1.0)
    assert overdue(schedule, 10.0) == []
    assert overdue(schedule, 11.0) == [1, 2]


steps = st.lists(
    st.tuples(st.sampled_from(["send", "ack", "refuse", "large", "wait", "fail"]), st.integers(0, 9), st.floats(0, 50)),
    max_size=60,
)


@given(steps)
def test_the_window_holds_and_time_always_moves_on(script: list[tuple[str, int, float]]) -> None:
    schedule = Schedule(PACE)
    now_s = 0.0
    for action, seq, delay_s in script:
        now_s += delay_s
        batch = entry(seq, list(Lane)[seq % 3])
        match action:
            case "send" if schedule.room() and batch.key not in schedule.busy(now_s):
                schedule.send(batch, now_s)
                if seq % 2:
                    schedule.published(batch, now_s)
            case "ack":
                schedule.acknowledged([batch.key], now_s)
            case "refuse":
                schedule.refused(batch, NOT_AUTHORISED, now_s, 0.5)
            case "large":
                schedule.refused(batch, TOO_LARGE, now_s, 0.5)
            case "fail":
                schedule.pause(batch.lane, now_s, 0.5)
        for late in schedule.take_overdue(now_s):
            schedule.send(late, now_s)
        assert len(schedule.busy(now_s)) <= PACE.in_flight + MAX_HELD
        assert 0 <= schedule.room() <= PACE.in_flight
        wake_at_s = schedule.wake_at_s(now_s)
        assert wake_at_s is None or now_s < wake_at_s < math.inf  # never a hot loop


def test_a_wanted_catalogue_goes_first_and_what_waits_for_it_follows_at_once() -> None:
    schedule = sent(1, 2, 3)
    schedule.want(b"d", [("e", 1), ("e", 3), ("e", 9)], 1.0)
    assert schedule.wake_at_s(1.0) == 1.0
    assert schedule.take_wanted(1.0) == [b"d"]
    assert schedule.waiting_for(b"d") == [("e", 1), ("e", 3)]
    assert overdue(schedule, 1.0) == []
    schedule.supplied(b"d", 2.0)
    assert overdue(schedule, 2.0) == [1, 3]
    schedule.acknowledged([("e", 1)], 3.0)
    assert schedule.waiting_for(b"d") == []


def test_a_receiver_that_wants_a_catalogue_for_ever_gets_it_at_growing_intervals() -> None:
    schedule = sent(1)
    times = []
    for tenth in range(3_000):
        schedule.want(b"d", [("e", 1)], tenth / 10)
        if schedule.take_wanted(tenth / 10):
            times.append(tenth / 10)
            schedule.supplied(b"d", tenth / 10)
        overdue(schedule, tenth / 10)
    assert times == [0.0, 10.0, 30.0, 70.0, 150.0, 230.0]


def test_what_is_wanted_is_bounded_and_concerns_only_batches_in_flight() -> None:
    schedule = sent(1)
    schedule.want(b"unknown", [("e", 7)], 0.0)
    for number in range(MAX_WANTED + 5):
        schedule.want(b"%d" % number, [("e", 1)], 0.0)
    assert len(schedule.take_wanted(0.0)) == MAX_WANTED


def test_a_catalogue_waits_while_its_lane_is_paused() -> None:
    schedule = sent(1)
    schedule.want(b"d", [("e", 1)], 0.0)
    wait_s = schedule.pause(Lane.EVENTS, 0.0, 0.5)
    assert schedule.take_wanted(0.0) == []
    assert schedule.wake_at_s(0.0) == wait_s
    assert schedule.take_wanted(wait_s) == [b"d"]
