"""Which batches must go so that the spool keeps its limits.  Pure: ages, sizes and priorities in, a decision out.

Order of eviction: what is over age; then, for quota and free space, the least important data (highest `priority`
number), the oldest first.  A batch that is about to be stored competes like the others, so important data never makes
room for unimportant.  Checkpoints compete as well.  They are the newest of their campaign and go after older batches
of equal worth; nothing is lost with a checkpoint while its window is in memory.  Events are small and explain every
gap: within their share they yield to age alone, beyond it they go before any data.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the spool.

    `quota_bytes` bounds the batches in all, and `max_age_s` their age since they were stored.  `reserve_bytes` of the
    file system stay free.  Data cannot take `events_bytes` of the quota from events.
    """

    quota_bytes: int
    max_age_s: float
    reserve_bytes: int
    events_bytes: int

    @staticmethod
    def of(quota_bytes: int, max_age_s: float, reserve_bytes: int) -> "Limits":
        """Return limits that keep a sixteenth of the quota for events."""
        return Limits(quota_bytes, max_age_s, reserve_bytes, quota_bytes // 16)


@dataclass(frozen=True, slots=True)
class Held:
    """A batch as retention sees it: `row` ascends with arrival, and a smaller `priority` is more important."""

    row: int
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
    """Return what to evict, of the stored batches and of `incoming`, so that what remains keeps `limits`.

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
        gone[batch.row] = Eviction(batch, reason)
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
    """Return a sort key by which the batch that goes first comes first."""
    return -batch.priority, batch.row


def merge_by_sacrifice(lanes: Iterable[Iterator[Held]]) -> Iterator[Held]:
    """Merge several orders that are each in the order of `sacrifice`."""
    return heapq.merge(*lanes, key=sacrifice)


def _with_incoming(stored: Iterable[Held], incoming: Iterable[Held], gone: dict[int, Eviction]) -> Iterator[Held]:
    for batch in heapq.merge(stored, sorted(incoming, key=sacrifice), key=sacrifice):
        if batch.row not in gone:
            yield batch
