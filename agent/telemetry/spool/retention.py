"""Decides which batches are evicted so that the spool stays within its limits.  This file is pure.

Batches over the age limit are evicted first.  Then, as long as the quota or the free space demands it, the least
important data (the highest `priority` number) is evicted.  Among equally important data, the oldest is evicted first.
A batch that is about to be stored competes with the stored ones, so important data never makes room for unimportant
data.

Checkpoints compete as well.  They are the newest data of their campaign, so older batches of equal priority are evicted
before them.  Evicting a checkpoint loses no data while its window is in memory.

Events are small, and they explain every gap in the data.  While the events fit into their share of the quota, they are
evicted only for age.  If the events exceed their share, and quota or free space demands an eviction, events are evicted
before any data until they fit again.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason


class Limits(msgspec.Struct, frozen=True):
    """The limits of the spool.

    `quota_bytes` limits the total size of all batches.  `max_age_s` limits the time that certainly passed since a batch
    was stored (agent.telemetry.spool.boots).  `reserve_bytes` is the space of the file system that the spool leaves
    free.  `events_bytes` is the share of the quota that is reserved for events.  `memory_bytes` limits the batches that
    are held in memory because the disk has no room for them (agent.telemetry.spool.memory).
    """

    quota_bytes: int
    max_age_s: float
    reserve_bytes: int
    events_bytes: int
    memory_bytes: int = 0

    @staticmethod
    def of(quota_bytes: int, max_age_s: float, reserve_bytes: int, memory_bytes: int = 0) -> "Limits":
        """Return limits that keep a sixteenth of the quota for events."""
        return Limits(quota_bytes, max_age_s, reserve_bytes, quota_bytes // 16, memory_bytes)


@dataclass(frozen=True, slots=True)
class Held:
    """A batch as retention sees it.

    A newer batch has a larger `row`.  A more important batch has a smaller `priority`.
    """

    row: int
    lane: Lane
    priority: int
    size_bytes: int


class Eviction(msgspec.Struct, frozen=True):
    """A batch that is to be evicted, and the reason."""

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
    """Return which stored and which incoming batches to evict so that the remaining batches stay within `limits`.

    `stored_bytes` is the size of all stored batches.  `events_bytes` is the size of the stored batches in the events
    lane.  Neither includes `incoming`.  `free_bytes` is the free space of the file system.  `expired` has the batches
    over the age limit.  `events` has the stored batches of the events lane, and `data` has all other stored batches,
    both in the order of `sacrifice`.  `data` and `events` are read only as far as needed, so the cost does not grow
    with the number of stored batches.
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
    """Return a sort key that is smallest for the batch to evict first."""
    return -batch.priority, batch.row


def merge_by_sacrifice(lanes: Iterable[Iterator[Held]]) -> Iterator[Held]:
    """Merge iterators, each in the order of `sacrifice`, into one iterator in that order."""
    return heapq.merge(*lanes, key=sacrifice)


def _with_incoming(stored: Iterable[Held], incoming: Iterable[Held], gone: dict[int, Eviction]) -> Iterator[Held]:
    for batch in heapq.merge(stored, sorted(incoming, key=sacrifice), key=sacrifice):
        if batch.row not in gone:
            yield batch
