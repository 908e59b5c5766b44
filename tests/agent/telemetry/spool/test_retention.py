"""After eviction all limits hold, and no batch was evicted before a less valuable one."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.spool.retention import Eviction, Held, Limits, evictions, sacrifice

NO_LIMIT = 10**12


def decide(
    limits: Limits, stored: list[Held], incoming: list[Held], *, free: int = NO_LIMIT, expired: list[Held] | None = None
) -> tuple[Eviction, ...]:
    return evictions(
        limits,
        stored_bytes=sum(batch.size_bytes for batch in stored),
        events_bytes=sum(batch.size_bytes for batch in stored if batch.lane is Lane.EVENTS),
        free_bytes=free,
        incoming=incoming,
        expired=expired or [],
        data=sorted((batch for batch in stored if batch.lane is not Lane.EVENTS), key=sacrifice),
        events=sorted((batch for batch in stored if batch.lane is Lane.EVENTS), key=sacrifice),
    )


def live(row: int, size: int = 100, priority: int = 0) -> Held:
    return Held(row, Lane.LIVE, priority, size)


def event(row: int, size: int = 10) -> Held:
    return Held(row, Lane.EVENTS, 0, size)


def gone(plan: tuple[Eviction, ...]) -> list[int]:
    return [eviction.batch.row for eviction in plan]


LIMITS = Limits(quota_bytes=1_000, max_age_s=100, reserve_bytes=0, events_bytes=100)


def test_nothing_goes_while_there_is_room() -> None:
    assert decide(LIMITS, [live(n) for n in range(9)], [live(100)]) == ()


def test_the_oldest_of_equal_priority_goes_first() -> None:
    assert gone(decide(LIMITS, [live(n) for n in range(10)], [live(100, 150)])) == [0, 1]


def test_the_least_important_goes_first_however_new() -> None:
    stored = [live(n, priority=0) for n in range(8)] + [live(8, priority=9), live(9, priority=9)]
    assert gone(decide(LIMITS, stored, [live(100)])) == [8]


def test_an_unimportant_newcomer_makes_room_for_itself_only() -> None:
    stored = [live(n, priority=0) for n in range(10)]
    assert gone(decide(LIMITS, stored, [live(100, priority=5)])) == [100]


def test_a_newcomer_larger_than_the_quota_takes_nothing_else_with_it_that_is_dearer() -> None:
    stored = [live(n, priority=0) for n in range(3)]
    assert gone(decide(LIMITS, stored, [live(100, 5_000, priority=1)])) == [100]


def test_events_within_their_share_outlive_all_data() -> None:
    stored = [event(n) for n in range(10)] + [live(10, 900)]
    assert gone(decide(LIMITS, stored, [live(100, 900)])) == [10]


def test_events_beyond_their_share_go_before_data() -> None:
    stored = [event(n, 50) for n in range(4)] + [live(10, 800)]
    assert gone(decide(LIMITS, stored, [event(100, 50)])) == [0]


def test_age_takes_events_and_data_alike_and_is_named() -> None:
    plan = decide(LIMITS, [event(0), live(1), live(2)], [], expired=[event(0), live(1)])
    assert {(item.batch.row, item.reason) for item in plan} == {(0, Reason.EVICTED_AGE), (1, Reason.EVICTED_AGE)}


def test_the_reserve_of_the_file_system_is_kept_and_named() -> None:
    limits = Limits(10_000, 100, reserve_bytes=500, events_bytes=100)
    plan = decide(limits, [live(n) for n in range(10)], [live(100)], free=450)
    assert [(item.batch.row, item.reason) for item in plan] == [
        (0, Reason.EVICTED_RESERVE),
        (1, Reason.EVICTED_RESERVE),
    ]


batches = st.builds(Held, st.just(0), st.sampled_from(Lane), st.integers(0, 3), st.integers(1, 300))


@given(st.lists(batches, max_size=30), st.lists(batches, max_size=4), st.integers(0, 3_000), st.integers(0, 3_000))
def test_limits_hold_and_nothing_dearer_went_first(
    stored: list[Held], incoming: list[Held], quota: int, free: int
) -> None:
    limits = Limits(quota, 100, reserve_bytes=700, events_bytes=quota // 4)
    stored = [Held(n, b.lane, b.priority, b.size_bytes) for n, b in enumerate(stored)]
    incoming = [Held(100 + n, b.lane, b.priority, b.size_bytes) for n, b in enumerate(incoming)]
    plan = decide(limits, stored, incoming, free=free)
    evicted = {item.batch.row for item in plan}
    assert len(evicted) == len(plan)
    left = [batch for batch in stored + incoming if batch.row not in evicted]
    events = sum(batch.size_bytes for batch in left if batch.lane is Lane.EVENTS)
    data = [batch for batch in left if batch.lane is not Lane.EVENTS]
    over_quota = sum(batch.size_bytes for batch in left) > quota
    used = sum(batch.size_bytes for batch in left) - sum(batch.size_bytes for batch in stored)
    over_reserve = free - used < limits.reserve_bytes
    if over_quota or over_reserve:  # only events within their share may exceed a limit
        assert not data
        assert events <= limits.events_bytes
    taken = [item.batch for item in plan if item.batch.lane is not Lane.EVENTS]
    assert all(sacrifice(one) < sacrifice(other) for one in taken for other in data)


def test_only_as_much_of_the_backlog_is_looked_at_as_goes() -> None:
    looked = 0

    def backlog() -> Iterator[Held]:
        nonlocal looked
        for n in range(100_000):
            looked += 1
            yield live(n)

    evictions(
        LIMITS,
        stored_bytes=1_000,
        events_bytes=0,
        free_bytes=NO_LIMIT,
        incoming=[live(10**6)],
        expired=[],
        data=backlog(),
        events=[],
    )
    assert looked <= 3
