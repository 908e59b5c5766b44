"""Which batches must go so that the spool keeps its limits.  Pure: ages, sizes and priorities in, a decision out.

Order of eviction: what is over age; then, for quota and free space, the least important data (highest `priority`
number), the oldest first.  A batch that is about to be stored competes like the others, so important data never
makes room for unimportant.  So do provisional batches: they are the newest of their campaign, and go after the older
ones of equal worth; what goes of them is not lost while their window is in memory.  Events are small and explain every
gap: within their share they yield to age alone, beyond it they go before any data.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.formats.topics import Lane
from agent.telemetry.losses import Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What the spool may hold.

    `quota_bytes` of batches in all; `max_age_s` since they were stored; `reserve_bytes` left free on the file
    system; `events_bytes` of the quota that data cannot take from events.
    """

    quota_bytes: int
    max_age_s: float
    reserve_bytes: int
    events_bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """A batch as retention sees it: `position` ascends with the time of arrival; smaller `priority` is dearer."""

    position: int
    lane: Lane
    priority: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Eviction:
    """A batch that must go."""

    batch: Held
    reason: Reason


def evictions(
    limits: Limits,
    *,
    stored_bytes: int,
    events_bytes: int,
    free_bytes: int,
    incoming: Sequence[Held],
    expired: Iterable[Held],
    data: Iterable[Held],
    events: Iterable[Held],
) -> tuple[Eviction, ...]:
    """What to evict, of the stored batches and of `incoming`, so that what remains keeps `limits`.

    `stored_bytes` is the total of all lanes and `events_bytes` that of the events lane, without `incoming`;
    `free_bytes` is what the file system has left.  `expired` are the batches over age; `data` and `events` are the
    stored batches in the order of `sacrifice`, read only as far as needed, so that the cost does not grow with
    the backlog.
    """
    arriving = sum(batch.size_bytes for batch in incoming)
    over_quota = stored_bytes + arriving - limits.quota_bytes
    over_reserve = limits.reserve_bytes + arriving - free_bytes
    over_share = events_bytes - limits.events_bytes
    over_share += sum(batch.size_bytes for batch in incoming if batch.lane is Lane.EVENTS)

    gone: dict[int, Eviction] = {}

    def evict(batch: Held, reason: Reason) -> None:
        nonlocal over_quota, over_reserve, over_share
        gone[batch.position] = Eviction(batch, reason)
        over_quota -= batch.size_bytes
        over_reserve -= batch.size_bytes
        over_share -= batch.size_bytes if batch.lane is Lane.EVENTS else 0

    for batch in expired:
        evict(batch, Reason.EVICTED_AGE)
    data_left = _with_incoming(data, (batch for batch in incoming if batch.lane is not Lane.EVENTS), gone)
    events_left = _with_incoming(events, (batch for batch in incoming if batch.lane is Lane.EVENTS), gone)
    while over_quota > 0 or over_reserve > 0:
        candidate = next(events_left, None) if over_share > 0 else None
        candidate = candidate or next(data_left, None)
        if candidate is None:
            break
        evict(candidate, Reason.EVICTED_QUOTA if over_quota > 0 else Reason.EVICTED_RESERVE)
    return tuple(gone.values())


def sacrifice(batch: Held) -> tuple[int, int]:
    """Sort key: what goes first comes first."""
    return -batch.priority, batch.position


def merge_by_sacrifice(lanes: Iterable[Iterator[Held]]) -> Iterator[Held]:
    """One order of several that are each in the order of `sacrifice`."""
    return heapq.merge(*lanes, key=sacrifice)


def _with_incoming(stored: Iterable[Held], incoming: Iterable[Held], gone: dict[int, Eviction]) -> Iterator[Held]:
    for batch in heapq.merge(stored, sorted(incoming, key=sacrifice), key=sacrifice):
        if batch.position not in gone:
            yield batch
