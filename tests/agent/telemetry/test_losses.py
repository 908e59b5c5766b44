"""Merging records of loss keeps every count, in any order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss, LossCounter, adjacent, merge, to_event

counts = st.integers(0, 1_000)
ranges = st.none() | st.tuples(st.integers(1, 50), st.integers(0, 5))


@st.composite
def losses(draw: st.DrawFn) -> Loss:
    seqs, times = draw(ranges), draw(ranges)
    return Loss(
        draw(st.sampled_from([Reason.BUS_OVERFLOW, Reason.EVICTED_QUOTA])),
        lane=draw(st.none() | st.sampled_from(Lane)),
        bus=draw(st.sampled_from([None, "can0", "can1"])),
        campaign=draw(st.sampled_from(["", "city"])),
        epoch=draw(st.sampled_from(["", "a" * 32])),
        batches=draw(counts),
        samples=draw(counts),
        frames=draw(counts),
        first_seq=seqs[0] if seqs else None,
        last_seq=seqs[0] + seqs[1] if seqs else None,
        first_t_us=times[0] if times else None,
        last_t_us=times[0] + times[1] if times else None,
    )


def totals(records: tuple[Loss, ...] | list[Loss]) -> dict[Reason, tuple[int, int, int]]:
    sums: dict[Reason, tuple[int, int, int]] = {}
    for loss in records:
        batches, samples, frames = sums.get(loss.reason, (0, 0, 0))
        sums[loss.reason] = batches + loss.batches, samples + loss.samples, frames + loss.frames
    return sums


@given(losses(), losses())
def test_merging_keeps_counts_and_widens_times(one: Loss, other: Loss) -> None:
    other = replace(other, reason=one.reason)
    merged = merge(one, other)
    assert totals([merged]) == totals([one, other])
    for loss in (one, other):
        if loss.first_t_us is not None and loss.last_t_us is not None:
            assert merged.first_t_us is not None
            assert merged.first_t_us <= loss.first_t_us
            assert merged.last_t_us is not None
            assert merged.last_t_us >= loss.last_t_us


def test_only_sequence_numbers_that_follow_on_are_adjacent() -> None:
    first = Loss(Reason.EVICTED_QUOTA, Lane.LIVE, batches=1, first_seq=7, last_seq=7)
    assert adjacent(first, replace(first, first_seq=8, last_seq=9))
    assert not adjacent(first, replace(first, first_seq=9, last_seq=9))
    assert not adjacent(first, replace(first, first_seq=8, last_seq=8, lane=Lane.BACKLOG))
    assert not adjacent(first, replace(first, first_seq=None, last_seq=None))


@given(st.lists(losses(), max_size=60), st.integers(1, 8))
def test_the_counter_keeps_every_count_within_its_limit(recorded: list[Loss], limit: int) -> None:
    counter = LossCounter(limit)
    for loss in recorded:
        counter.add(loss)
    taken = counter.take()
    assert totals(taken) == totals(recorded)
    assert len(taken) <= max(limit, len(Reason))
    assert counter.take() == ()


@given(st.lists(losses(), max_size=20), st.lists(losses(), max_size=20))
def test_what_is_put_back_is_counted_again(first: list[Loss], second: list[Loss]) -> None:
    counter = LossCounter()
    for loss in first:
        counter.add(loss)
    taken = counter.take()
    for loss in second:
        counter.add(loss)
    counter.put_back(taken)
    assert totals(counter.take()) == totals(first + second)


def test_an_event_says_what_is_known_and_nothing_else() -> None:
    loss = Loss(Reason.BUS_OVERFLOW, bus="can0", frames=12, first_t_us=0, last_t_us=5)
    event = to_event(7, loss, 99)
    assert (event.t_us, event.kind) == (99, "loss")
    said = {"reason": "bus_overflow", "bus": "can0", "frames": 12, "first_t_us": 0, "last_t_us": 5}
    assert event.fields == {"id": 7, **said}


def test_a_lane_travels_by_name() -> None:
    assert to_event(1, Loss(Reason.EVICTED_AGE, Lane.LIVE, batches=1), 0).fields["lane"] == "live"
