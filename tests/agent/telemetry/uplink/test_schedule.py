"""Test what the uplink sends next, in virtual time."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.acks import Sealed
from agent.link.session import Backoff
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.bucket import TokenBucket
from agent.telemetry.uplink.catalogue_requests import MAX_WANTED
from agent.telemetry.uplink.pauses import MAX_HELD
from agent.telemetry.uplink.schedule import Pace, Schedule
from agent.telemetry.uplink.turns import LANES, NEW, POLICY, Turn
from agent.telemetry.uplink.unanswered import ASIDE_CAP_S, ASIDE_MIN_S, MAX_UNANSWERED, REPEATS, Unanswered

PACE = Pace(in_flight=4, ack_timeout_s=10.0, patience_cap_s=80.0, refusal=Backoff(1.0, 2.0, 60.0))
NOT_AUTHORISED = 0x87
TOO_LARGE = 0x95
TURNS = {rule.lane: turn for turn, rule in NEW}


def entry(seq: int, lane: Lane = Lane.LIVE, size: int = 100) -> Entry:
    return Entry(seq, "e", seq, lane, 0, "", size, b"", 0, None, None)


def new(pace: Pace = PACE, *, rate: float = 0, unanswered: Unanswered | None = None) -> Schedule:
    return Schedule(pace, TokenBucket(rate), Unanswered() if unanswered is None else unanswered)


def send(schedule: Schedule, *seqs: int, at_s: float, lane: Lane = Lane.LIVE) -> None:
    """Send new batches, and let the broker accept each of them."""
    chosen = schedule.choose({TURNS[lane]: [entry(seq, lane) for seq in seqs]}, LANES, at_s)
    assert [batch.seq for batch, _ in chosen] == list(seqs)
    for batch, _ in chosen:
        schedule.published(batch, at_s)


def sent(*seqs: int) -> Schedule:
    schedule = new()
    send(schedule, *seqs, at_s=0.0)
    return schedule


def overdue(schedule: Schedule, now_s: float) -> list[int]:
    """Send the overdue batches again, as the uplink would, and return their numbers."""
    chosen = schedule.choose({}, LANES, now_s)
    for late, again in chosen:
        assert again
        schedule.published(late, now_s)
    return [late.seq for late, _ in chosen]


def test_the_window_bounds_what_is_unacknowledged() -> None:
    schedule = sent(1, 2, 3)
    assert schedule.room() == 1
    assert schedule.busy(0.0) == {("e", 1), ("e", 2), ("e", 3)}
    schedule.acknowledged([("e", 2)], 1.0)
    assert schedule.room() == 2
    waiting = {Turn.LIVE: [entry(seq) for seq in range(4, 9)]}
    assert [batch.seq for batch, _ in schedule.choose(waiting, LANES, 1.0)] == [4, 5]


def test_answers_count_only_for_batches_that_were_sent_with_their_digest() -> None:
    schedule = new()
    batches = [replace(entry(seq), digest=bytes([seq]) * 32) for seq in (1, 2, 3)]
    schedule.choose({Turn.LIVE: batches[:2]}, LANES, 0.0)
    schedule.published(batches[0], 0.0)
    assert overdue(schedule, 10.0) == [1]  # in flight again, and unanswered
    named = [batches[0].sealed, Sealed(2, bytes(16)), batches[2].sealed]
    assert schedule.outstanding.named_by("e", named) == [("e", 1)]
    assert schedule.outstanding.named_by("f", named) == []


def test_events_go_first_then_live_then_backlog() -> None:
    schedule = new()
    assert schedule.new_turns(LANES, 0.0) == [Turn.EVENTS, Turn.LIVE, Turn.BACKLOG]
    waiting = {TURNS[lane]: [entry(lane.value, lane)] for lane in (Lane.BACKLOG, Lane.LIVE, Lane.EVENTS)}
    assert [batch.lane for batch, _ in schedule.choose(waiting, LANES, 0.0)] == list(LANES)


def test_the_link_decides_which_lanes_may_send() -> None:
    schedule = new()
    waiting = {TURNS[lane]: [entry(lane.value, lane)] for lane in LANES}
    allowed = (Lane.EVENTS, Lane.LIVE)
    assert schedule.new_turns(allowed, 0.0) == [Turn.EVENTS, Turn.LIVE]
    assert [batch.lane for batch, _ in schedule.choose(waiting, allowed, 0.0)] == list(allowed)
    assert len(schedule.choose({Turn.BACKLOG: waiting[Turn.BACKLOG]}, LANES, 0.0)) == 1


def test_an_acknowledgement_is_due_from_the_puback_on() -> None:
    schedule = new()
    schedule.choose({Turn.LIVE: [entry(1)]}, LANES, 0.0)
    assert schedule.wake_at_s(LANES, 0.0) is None  # the connection bounds how long a publish may take
    assert overdue(schedule, 1_000.0) == []
    schedule.published(entry(1), 100.0)
    assert schedule.wake_at_s(LANES, 100.0) == 110.0
    assert overdue(schedule, 109.9) == []
    assert overdue(schedule, 110.0) == [1]


def test_one_lost_acknowledgement_costs_one_repeat_while_others_arrive() -> None:
    schedule = sent(1, 2)
    schedule.acknowledged([("e", 2)], 1.0)
    assert overdue(schedule, 10.0) == [1]
    send(schedule, 3, at_s=12.0)
    schedule.acknowledged([("e", 3)], 13.0)
    assert overdue(schedule, 29.9) == []
    assert overdue(schedule, 30.0) == [1]  # twice the patience


def test_a_receiver_that_is_away_is_probed_with_one_batch_at_growing_intervals() -> None:
    schedule = sent(1, 2, 3, 4)
    probes = []
    now_s = 0.0
    while now_s < 400.0:
        wake_at_s = schedule.wake_at_s(LANES, now_s)
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
    schedule = new()
    now_s = 0.0
    waits = []
    for _ in range(7):
        schedule.choose({Turn.LIVE: [entry(1)]}, LANES, now_s)
        waits.append(schedule.refused(entry(1), NOT_AUTHORISED, now_s, 1.0))
        assert schedule.pauses.open_lanes(now_s) == (Lane.EVENTS, Lane.BACKLOG)
        assert schedule.room() == 4
        assert schedule.wake_at_s(LANES, now_s) == now_s + waits[-1]
        now_s += waits[-1]
        assert schedule.pauses.open_lanes(now_s) == LANES
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    send(schedule, 1, at_s=now_s)
    assert schedule.refused(entry(2), NOT_AUTHORISED, now_s, 1.0) == 2.0


def test_a_burst_of_refusals_counts_once() -> None:
    schedule = new()
    schedule.choose({Turn.LIVE: [entry(seq) for seq in range(4)]}, LANES, 0.0)
    assert [schedule.refused(entry(seq), NOT_AUTHORISED, 0.0, 1.0) for seq in range(4)] == [2.0] * 4


def test_a_batch_that_is_too_large_waits_alone() -> None:
    schedule = new()
    schedule.choose({Turn.LIVE: [entry(1)]}, LANES, 0.0)
    assert schedule.refused(entry(1), TOO_LARGE, 0.0, 1.0) == 60.0
    assert schedule.pauses.open_lanes(0.0) == LANES
    assert schedule.busy(59.9) == {("e", 1)}
    assert schedule.busy(60.0) == set()


def test_many_batches_that_are_too_large_pause_the_lane_instead_of_filling_memory() -> None:
    schedule = new()
    for seq in range(MAX_HELD + 10):
        schedule.refused(entry(seq), TOO_LARGE, 0.0, 1.0)
    assert len(schedule.busy(0.0)) == MAX_HELD
    assert Lane.LIVE not in schedule.pauses.open_lanes(0.0)


def test_batches_of_a_paused_lane_are_not_repeated_meanwhile() -> None:
    schedule = sent(1, 2)
    schedule.acknowledged([], 1.0)
    schedule.pauses.pause(Lane.LIVE, 9.0, 1.0)
    assert overdue(schedule, 10.0) == []
    assert overdue(schedule, 11.0) == [1, 2]


steps = st.lists(
    st.tuples(st.sampled_from(["send", "ack", "refuse", "large", "wait", "fail"]), st.integers(0, 9), st.floats(0, 50)),
    max_size=60,
)


@given(steps)
def test_the_window_holds_and_time_always_moves_on(script: list[tuple[str, int, float]]) -> None:
    schedule = new(rate=30.0)
    now_s = 0.0
    for action, seq, delay_s in script:
        now_s += delay_s
        batch = entry(seq, list(Lane)[seq % 3])
        waiting: dict[Lane, list[Entry]] = {}
        match action:
            case "send" if batch.key not in schedule.busy(now_s):
                waiting = {batch.lane: [batch]}
            case "ack":
                schedule.acknowledged([batch.key], now_s)
            case "refuse":
                schedule.refused(batch, NOT_AUTHORISED, now_s, 0.5)
            case "large":
                schedule.refused(batch, TOO_LARGE, now_s, 0.5)
            case "fail":
                schedule.pauses.pause(batch.lane, now_s, 0.5)
        for chosen, _ in schedule.choose(waiting, LANES, now_s):
            if seq % 2:
                schedule.published(chosen, now_s)
        assert 0 <= schedule.room() <= PACE.in_flight
        wake_at_s = schedule.wake_at_s(LANES, now_s)
        assert wake_at_s is None or now_s < wake_at_s < math.inf  # never a hot loop


def test_a_wanted_catalogue_goes_first_and_what_waits_for_it_follows_at_once() -> None:
    schedule = sent(1, 2, 3)
    schedule.want(b"d", [("e", 1), ("e", 3), ("e", 9)], 1.0)
    assert schedule.take_wanted(1.0) == [b"d"]
    assert schedule.requests.waiting_for(b"d") == [("e", 1), ("e", 3)]
    assert overdue(schedule, 1.0) == []
    schedule.supplied(b"d", 2.0)
    assert overdue(schedule, 2.0) == [1, 3]
    schedule.acknowledged([("e", 1)], 3.0)
    assert schedule.requests.waiting_for(b"d") == []


def test_what_was_sent_before_its_catalogue_follows_it_though_the_receiver_says_so_late() -> None:
    schedule = sent(1, 2)
    schedule.want(b"d", [("e", 1)], 1.0)
    assert schedule.take_wanted(1.0) == [b"d"]
    schedule.supplied(b"d", 2.0)
    assert overdue(schedule, 2.0) == [1]
    schedule.want(b"d", [("e", 2)], 3.0)
    assert overdue(schedule, 3.0) == [2]
    assert schedule.take_wanted(1_000.0) == []


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
    wait_s = schedule.pauses.pause(Lane.EVENTS, 0.0, 0.5)
    assert schedule.take_wanted(0.0) == []
    assert schedule.wake_at_s(LANES, 0.0) == wait_s
    assert schedule.take_wanted(wait_s) == [b"d"]


# ---- the backlog's rate


def test_the_backlog_never_takes_the_last_place_of_the_window() -> None:
    schedule = new()
    waiting = {Turn.BACKLOG: [entry(seq, Lane.BACKLOG) for seq in range(9)]}
    assert len(schedule.choose(waiting, LANES, 0.0)) == PACE.in_flight - 1
    assert len(schedule.choose({Turn.LIVE: [entry(20)]}, LANES, 0.0)) == 1
    one = new(replace(PACE, in_flight=1))
    assert len(one.choose(waiting, LANES, 0.0)) == 1


def test_the_backlog_waits_for_its_rate_and_fresh_data_does_not() -> None:
    schedule = new(replace(PACE, in_flight=100), rate=100.0)
    waiting = {Turn.BACKLOG: [entry(seq, Lane.BACKLOG, 250) for seq in range(9)]}
    assert len(schedule.choose(waiting, LANES, 0.0)) == 1  # a burst of one second, overdrawn by one batch
    assert schedule.new_turns(LANES, 0.0) == [Turn.EVENTS, Turn.LIVE]
    assert len(schedule.choose({Turn.LIVE: [entry(seq, size=250) for seq in range(20, 26)]}, LANES, 0.0)) == 6
    wake_at_s = schedule.wake_at_s(LANES, 0.0)
    assert wake_at_s is not None
    assert 1.5 < wake_at_s < 1.6
    assert schedule.new_turns(LANES, wake_at_s) == [Turn.EVENTS, Turn.LIVE, Turn.BACKLOG]


# ---- batches that get no answer


class World:
    """Simulates a receiver that answers `answerable` batches at once, and a spool that keeps all others."""

    def __init__(self, pace: Pace, answerable: Callable[[Entry], bool], rate: float = 0) -> None:
        self.unanswered = Unanswered()
        self.schedule = new(pace, rate=rate, unanswered=self.unanswered)
        self.spool: dict[Lane, deque[Entry]] = {lane: deque() for lane in LANES}
        self.answerable = answerable
        self.now_s = 0.0
        self.sendings: list[tuple[float, Entry]] = []
        self.delivered: dict[int, float] = {}

    def store(self, batch: Entry) -> None:
        self.spool[batch.lane].appendleft(batch)

    def run(self, until_s: float) -> None:
        while True:
            self._send_all()
            wake_at_s = self.schedule.wake_at_s(LANES, self.now_s)
            if wake_at_s is None or wake_at_s >= until_s:
                break
            assert wake_at_s > self.now_s
            self.now_s = wake_at_s
        self.now_s = until_s

    def _send_all(self) -> None:
        while True:
            busy, room = self.schedule.busy(self.now_s), self.schedule.room()
            kinds = [(turn, POLICY[turn].lane) for turn in self.schedule.new_turns(LANES, self.now_s)]
            waiting = {
                turn: [e for e in self.spool[lane] if e.key not in busy][: max(room, 1)]
                for turn, lane in kinds
                if lane is not None
            }
            chosen = self.schedule.choose(waiting, LANES, self.now_s)
            if not chosen:
                return
            for batch, _ in chosen:
                self.sendings.append((self.now_s, batch))
                self.schedule.published(batch, self.now_s)
            for batch, _ in chosen:
                if self.answerable(batch):
                    self.spool[batch.lane].remove(batch)
                    self.delivered[batch.seq] = self.now_s
                    self.schedule.acknowledged([batch.key], self.now_s)


silent_batches = st.dictionaries(st.sampled_from(LANES), st.integers(0, 300))


@settings(max_examples=60, deadline=None)
@given(silent_batches, st.integers(1, 8), st.integers(1, 60))
def test_fresh_batches_are_delivered_however_many_get_no_answer(
    silent: dict[Lane, int], in_flight: int, every_s: int
) -> None:
    pace = replace(PACE, in_flight=in_flight)
    world = World(pace, lambda batch: batch.seq >= 10_000)
    for lane, count in silent.items():
        for _ in range(count):
            world.store(entry(sum(map(len, world.spool.values())), lane))
    for number in range(40):
        world.run(until_s=100.0 + number * every_s)
        world.store(entry(10_000 + number))
    world.run(until_s=100.0 + 40 * every_s + 1_000.0)
    waits_s = [world.delivered[10_000 + number] - (100.0 + number * every_s) for number in range(40)]
    # At worst, silent fresh batches fill the window and each turn sends a probe before an answerable batch is sent.
    assert max(waits_s) <= 4 * pace.patience_cap_s
    if not silent.get(Lane.LIVE):
        assert max(waits_s) <= pace.ack_timeout_s


def test_answerable_backlog_behind_unanswerable_is_delivered() -> None:
    world = World(PACE, lambda batch: batch.seq % 10 == 0)
    for seq in range(500):
        world.store(entry(seq, Lane.BACKLOG))
    world.run(until_s=50_000.0)
    assert len(world.delivered) == 50


def test_a_batch_that_gets_no_answer_is_repeated_then_set_aside_and_tried_ever_more_rarely() -> None:
    world = World(PACE, lambda batch: batch.seq > 0)
    world.store(entry(0))
    for number in range(1, 5_000):
        world.store(entry(number))
        world.run(until_s=number * 30.0)
    times = [at_s for at_s, batch in world.sendings if batch.seq == 0]
    gaps = [round(later - earlier) for earlier, later in pairwise(times)]
    repeats, aside = gaps[:-11], gaps[-11:]
    assert REPEATS <= len(repeats) <= 3 * REPEATS  # a try counts only if the receiver answers later ones
    assert all(10 <= gap <= 60 for gap in repeats)
    expected = [min(ASIDE_CAP_S, ASIDE_MIN_S * 2**n) for n in range(11)]
    assert all(least <= gap <= least + 30 for gap, least in zip(aside, expected, strict=True))
    assert world.unanswered.set_aside == 1


def test_while_nobody_answers_no_batch_is_set_aside_and_all_follow_when_somebody_does() -> None:
    away = True
    world = World(PACE, lambda _: not away)
    for seq in range(50):
        world.store(entry(seq))
    world.run(until_s=7_200.0)
    assert len(world.sendings) < PACE.in_flight + 7_200 / PACE.patience_cap_s + 10
    assert world.unanswered.set_aside == 0
    away = False
    world.run(until_s=7_200.0 + 2 * PACE.patience_cap_s)
    assert len(world.delivered) == 50


def test_what_is_remembered_of_silent_batches_is_bounded_and_fresh_data_goes_on() -> None:
    world = World(replace(PACE, in_flight=64), lambda batch: batch.seq >= 100_000)
    for seq in range(MAX_UNANSWERED + 500):
        world.store(entry(seq, Lane.BACKLOG))
    for number in range(400):
        world.store(entry(100_000 + number))
        world.run(until_s=number * 10.0)
        assert len(world.unanswered) <= MAX_UNANSWERED
    world.run(until_s=5_000.0)
    assert len(world.delivered) == 400
    assert len({batch.seq for _, batch in world.sendings if batch.lane is Lane.BACKLOG}) <= MAX_UNANSWERED + 64


def test_silent_batches_keep_their_intervals_over_reconnects() -> None:
    unanswered = Unanswered()
    for times in range(1, REPEATS + 1):
        unanswered.note(entry(1), Lane.LIVE, 0.0, 10.0)
        unanswered.others_answered(0.0, timeout_s=10.0)
        assert unanswered.set_aside == (times == REPEATS)
    again = new(unanswered=unanswered)
    assert again.busy(20.0) == {("e", 1)}
    assert overdue(again, 20.0) == []
    assert overdue(again, ASIDE_MIN_S) == [1]


def test_every_lane_is_supplied_and_travels_in_one_turn() -> None:
    assert {rule.lane for _, rule in NEW} == set(Lane)
    supplied = [supply for _, rule in NEW for supply in rule.supplies]
    assert {supply.lane for supply in supplied} == set(Lane)
    assert len(supplied) == len(set(supplied))


def test_another_pace_holds_from_the_next_batch_on() -> None:
    schedule = sent(1)
    schedule.set_pace(replace(PACE, in_flight=2, ack_timeout_s=50.0))
    assert schedule.room() == 1
    send(schedule, 2, at_s=5.0)
    assert schedule.room() == 0
    assert {flight.entry.seq: flight.overdue_at_s for flight in schedule.flights} == {1: 10.0, 2: 55.0}
