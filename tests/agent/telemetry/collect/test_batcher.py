import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.collect.batcher import MAX_CHECKPOINTS, Batcher, Span, Tick

S = 1_000_000_000


def batcher(periods_s=None, *, increment_s=5, silence_s=10, max_frames=1_000, max_window_samples=100_000, loss_s=0):
    periods_s = {"drive": 10} if periods_s is None else periods_s
    return Batcher(
        {name: period * S for name, period in periods_s.items()},
        increment_ns=increment_s * S,
        silence_ns=silence_s * S,
        max_frames=max_frames,
        max_window_samples=max_window_samples,
        checkpoint_ns=loss_s * S,
    )


def feed(core, *t_s, now_s=0):
    return list(core.add_times(np.array([int(t * S) for t in t_s], np.int64), now_s * S))


def test_an_increment_is_ended_by_the_first_frame_beyond_it():
    core = batcher()
    assert feed(core, 0, 1, 4.9) == []
    assert feed(core, 5, 6) == [Tick(3, ())]
    assert core.buffered == 2


def test_a_window_closes_at_the_tick_at_which_its_period_has_passed_rounded_up_to_increments():
    core = batcher({"long": 12, "short": 3})
    ticks = feed(core, *range(20))
    assert ticks == [
        Tick(5, (Span("short", 0, 5 * S),)),
        Tick(5, (Span("short", 5 * S, 10 * S),)),
        Tick(5, (Span("long", 0, 15 * S), Span("short", 10 * S, 15 * S))),
    ]


def test_increments_follow_one_another_from_the_first_frame_on():
    core = batcher()
    assert feed(core, 103.5, 108.4, 108.6, 113.4) == [Tick(2, ())]
    assert feed(core, 113.5) == [Tick(2, (Span("drive", int(103.5 * S), int(113.5 * S)),))]


def test_a_gap_without_frames_closes_the_window_that_it_outlasts():
    core = batcher()
    assert feed(core, 0, 1, 3_600) == [Tick(2, (Span("drive", 0, 5 * S),))]
    assert feed(core, 3_604.9, 3_605) == [Tick(2, ())]


def test_a_clock_that_steps_back_ends_the_increment_and_stretches_no_window():
    core = batcher()
    ticks = feed(core, 90_000, 90_001, 1, 2, 6, 7, 11)
    assert [tick.frames for tick in ticks] == [2, 2, 2]
    assert ticks[-1].closing == (Span("drive", 1 * S, 90_001 * S + 1),)


def test_frames_slightly_out_of_order_stay_in_their_increment():
    core = batcher()
    assert feed(core, 2, 0, 1, 6.9) == []
    assert feed(core, 7, 6.8) == [Tick(4, ())]


def test_the_buffer_is_taken_when_it_is_full():
    core = batcher(max_frames=3)
    assert feed(core, 0, 1, 2, 2, 3) == [Tick(3, ())]
    assert core.buffered == 2


def test_a_window_closes_once_it_holds_its_limit_of_samples():
    core = batcher({"drive": 60}, max_window_samples=50)
    held = iter([49, 50, 1])
    closed = []
    for tick in core.add_times(np.array([0, 5, 10, 15]) * S, 0):
        assert tick == Tick(1, ())
        closed.append(core.collected("drive", next(held)))
    assert closed == [None, Span("drive", 0, 10 * S), None]
    assert core.flush() == [Tick(1, (Span("drive", 10 * S, 15 * S + 1),))]


def test_silence_takes_and_closes_everything_at_the_deadline_and_not_before():
    core = batcher()
    assert core.deadline_ns is None
    feed(core, 1_000, 1_001, now_s=50)
    assert core.deadline_ns == 60 * S
    feed(core, 1_002, now_s=53)
    assert core.poll(63 * S - 1) == []
    assert core.poll(63 * S) == [Tick(3, (Span("drive", 1_000 * S, 1_002 * S + 1),))]
    assert core.deadline_ns is None
    assert core.poll(1_000 * S) == []


def test_silence_also_closes_a_window_whose_frames_were_all_taken():
    core = batcher({"drive": 60}, max_frames=2)
    assert feed(core, 0, 1) == [Tick(2, ())]
    assert core.poll(10 * S) == [Tick(0, (Span("drive", 0, 1 * S + 1),))]


def test_a_flush_takes_and_closes_everything_and_the_next_one_nothing():
    core = batcher({"a": 60, "b": 60})
    feed(core, 0, 1)
    assert core.flush() == [Tick(2, (Span("a", 0, S + 1), Span("b", 0, S + 1)))]
    assert core.flush() == []


def test_without_campaigns_frames_are_still_taken():
    core = batcher({})
    assert feed(core, 0, 5) == [Tick(1, ())]
    assert core.flush() == [Tick(1, ())]


TIMES = st.lists(st.integers(-20, 40), min_size=1, max_size=60).map(lambda steps: np.cumsum(steps) * S // 4)


@given(TIMES, st.integers(1, 7), st.integers(1, 60))
def test_each_frame_is_taken_once_and_blocks_of_any_size_give_the_same_ticks(t_ns, block, max_frames):
    whole, cut = batcher({"a": 3, "b": 30}, max_frames=max_frames), batcher({"a": 3, "b": 30}, max_frames=max_frames)
    at_once = list(whole.add_times(t_ns, 0))
    assert max([tick.frames for tick in at_once], default=0) <= max_frames
    assert whole.buffered < max_frames
    at_once += whole.flush()
    in_blocks = [tick for i in range(0, len(t_ns), block) for tick in cut.add_times(t_ns[i : i + block], i)]
    in_blocks += cut.flush()
    assert in_blocks == at_once
    assert sum(tick.frames for tick in at_once) == len(t_ns)
    for closing in (closing for tick in at_once for closing in tick.closing):
        assert closing.start_ns < closing.end_ns


def test_what_stays_open_is_to_be_made_durable_every_loss_window():
    core = batcher({"drive": 30, "short": 5}, loss_s=10)
    ticks = []
    for second in range(0, 36, 5):
        for tick in feed(core, second):
            ticks.append(([c.campaign for c in tick.closing], tick.checkpoints))
            for span in tick.checkpoints:
                core.checkpointed(span.campaign)
    assert ticks == [
        (["short"], ()),
        (["short"], (Span("drive", 0, 10 * S),)),
        (["short"], ()),
        (["short"], (Span("drive", 10 * S, 20 * S),)),
        (["short"], ()),
        (["drive", "short"], ()),  # the window closes, so it needs no checkpoint
        (["short"], ()),
    ]


def test_made_durable_ahead_of_time_windows_stay_open_and_end_as_they_would():
    core = batcher({"drive": 10})
    assert core.checkpoint() == []
    feed(core, 0, 1, 2)
    assert core.checkpoint() == [Tick(3, (), (Span("drive", 0, 2 * S + 1),))]
    core.checkpointed("drive")
    assert core.checkpoint() == [Tick(0, (), ())]  # no frame came since
    assert [tick.frames for tick in feed(core, 3, 6, 8)] == [2]
    assert feed(core, 13)[0].closing == (Span("drive", 0, 12 * S + 1),)


def test_what_could_not_be_made_durable_is_asked_for_again():
    core = batcher({"drive": 60}, loss_s=5)
    assert feed(core, 0, 5)[0].checkpoints == (Span("drive", 0, 5 * S),)
    assert feed(core, 10)[0].checkpoints == (Span("drive", 0, 10 * S),)
    core.checkpointed("drive")
    assert feed(core, 15)[0].checkpoints == (Span("drive", 10 * S, 15 * S),)


def test_a_window_has_a_limited_number_of_checkpoints():
    core = batcher({"endless": 10**6}, loss_s=5)
    made = 0
    for second in range(0, 10**6, 5):
        for tick in feed(core, second):
            if tick.closing:
                assert made == MAX_CHECKPOINTS
                return
            made += 1
            core.checkpointed("endless")
