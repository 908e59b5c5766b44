"""Makes room for new batches in the spool by evicting batches, and says when room is short.

agent.telemetry.spool.retention decides which batches to evict.  This file asks for a decision only if a batch is over
the age limit, or if the new batches would exceed another limit.  A new batch for which the disk has no room is not lost
yet: it goes to memory (agent.telemetry.spool.memory), where it may crowd out batches of less value.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.formats.up.losses import Reason
from agent.telemetry.spool import retention, shortage
from agent.telemetry.spool.batch import BatchId, Entry
from agent.telemetry.spool.boots import observe, over_age
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.memory import Memory
from agent.telemetry.spool.recovery import lose
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.transactions import Transactions

AGED_AT_ONCE: Final = 64  # one append evicts at most this many batches over age; more than it usually adds
SLACK: Final = 16
"""A shortage of room ends only when a sixteenth of the limit is free again, so that it does not end and begin anew with
each batch."""
AGE_QUIET_US: Final = 600_000_000
"""Evictions for age count as one, if no more than this time lies between them."""
_ARRIVING: Final = 2**62


@dataclass(slots=True)
class Misfits:
    """The arriving batches that the disk has no room for, by id, with the limit.

    Memory has room for the batches `held`.  The batches `refused` are lost; a refused checkpoint is only withdrawn.
    """

    held: dict[BatchId, Reason] = field(default_factory=dict)
    refused: dict[BatchId, Reason] = field(default_factory=dict)


class Room:
    """Keeps the spool within its limits.  The caller must hold the `turn` of the transactions."""

    def __init__(
        self, transactions: Transactions, folder: SpoolFolder, limits: Limits, clock: Callable[[], Clock]
    ) -> None:
        self._transactions = transactions
        self._memory: Memory = transactions.memory
        self._folder = folder
        self._limits = limits
        self._clock = clock
        # By reason, the evictions that have begun: the bytes that lacked room, and the time of the last one.
        self._evicting: dict[Reason, tuple[int, int]] = {}

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next batch on.  The next batch evicts what exceeds them."""
        self._limits = limits

    def make(self, index: Index, arriving: Sequence[Entry], dropped: Sequence[Entry]) -> Misfits:
        """Evict batches as the limits demand; return which of the `arriving` batches the disk has no room for.

        `dropped` are the stored checkpoints that `arriving` will replace.  Raises Transient.
        """
        try:
            evicted = self._evicted(index, arriving, dropped)
        except OSError as error:
            raise self._folder.refuses(error) from error
        unplaced = {entry.key: (entry, reason) for entry, reason in evicted if not entry.row}
        overflow = self._memory.overflow([entry for entry, _ in unplaced.values() if not entry.waits])
        lost = [(entry, reason) for entry, reason in evicted if entry.row]
        lost += [(held, held.withdrawn) for held in self._memory.entries() if held.key in overflow and held.withdrawn]
        self.lose([(entry, reason, "") for entry, reason in lost])
        misfits = Misfits()
        for key, (entry, reason) in unplaced.items():
            refused = entry.waits or key in overflow
            (misfits.refused if refused else misfits.held)[key] = reason
            lost += [(entry, reason)] if refused else []
        self._note_evictions(((e, reason) for e, reason in lost if not e.waits), sum(e.size_bytes for e in arriving))
        return misfits

    def spare_bytes(self, index: Index) -> int:
        """Return how many bytes could be stored now without an eviction.  Raises OSError or sqlite3.Error."""
        taken_bytes = index.usage.stored_bytes() + self._folder.sweeper.doomed[1]
        return min(self._limits.quota_bytes - taken_bytes, self._folder.free_bytes() - self._limits.reserve_bytes)

    def shortages(self, index: Index) -> shortage.Shortages:
        """Return the present shortages, with their texts.  Raises OSError or sqlite3.Error."""
        limits, found = self._limits, {}
        free_bytes, stored_bytes = self._folder.free_bytes(), index.usage.stored_bytes()
        if free_bytes < limits.reserve_bytes:
            found[shortage.RESERVE] = shortage.below_reserve(self._folder.root, free_bytes, limits.reserve_bytes)
        now_us = self._clock().boottime_us
        for reason, (lacked_bytes, last_us) in list(self._evicting.items()):
            over = {
                Reason.EVICTED_QUOTA: stored_bytes + lacked_bytes > limits.quota_bytes - limits.quota_bytes // SLACK,
                Reason.EVICTED_RESERVE: free_bytes
                < limits.reserve_bytes + limits.reserve_bytes // SLACK + lacked_bytes,
                Reason.EVICTED_AGE: now_us < last_us + AGE_QUIET_US,
            }
            if over[reason]:
                found[reason.value] = shortage.evicting(reason)
            else:
                del self._evicting[reason]
        return found

    def _note_evictions(self, lost: Iterable[tuple[Entry, Reason]], arriving_bytes: int) -> None:
        now_us = self._clock().boottime_us
        for _, reason in lost:
            self._evicting[reason] = arriving_bytes, now_us

    def lose(self, lost: Sequence[tuple[Entry, Reason, str]], *, keep: bool = False) -> None:
        """Remove batches and record their loss; with `keep`, their files go to quarantine.  Raises Transient.

        For a checkpoint of an open window, only the file is removed, and no loss is recorded yet.
        """
        if not lost:
            return
        with self._transactions.writing() as index:
            for entry, reason, detail in lost:
                if entry.waits:
                    # The checkpoint's window is still in memory, so no data is lost yet.
                    index.checkpoints.withdraw(entry.row, reason)
                else:
                    lose(index, entry, reason, detail)
            self._transactions.removing = [entry for entry, _, _ in lost]
        for entry, _, _ in lost:
            self._memory.drop(entry.key)
        if keep:
            for entry, _, _ in lost:
                self._folder.quarantine(self._folder.path(entry.name), self._clock().wall_us)
        self._transactions.unlink(self._transactions.removing)

    def _aged(self, index: Index) -> list[Entry]:
        """Return up to AGED_AT_ONCE batches over the age limit, the oldest first."""
        aged: list[Entry] = []
        boots = observe(index.boots.all(), self._clock())
        for boot, before_us in over_age(boots, round(self._limits.max_age_s * 1e6)):
            aged += index.queues.stored_before(boot, before_us, AGED_AT_ONCE - len(aged))
            if len(aged) == AGED_AT_ONCE:
                break
        return aged

    def _evicted(self, index: Index, arriving: Sequence[Entry], dropped: Sequence[Entry]) -> list[tuple[Entry, Reason]]:
        """Return which stored and which `arriving` batches to evict, and why.

        The checkpoints `dropped` do not count towards the quota, although their files still take space.  If space is
        short, the files of acknowledged batches are removed before any batch is evicted.  Raises OSError or
        sqlite3.Error.
        """
        aged = self._aged(index)
        stored_bytes = index.usage.stored_bytes()
        arriving_bytes = sum(entry.size_bytes for entry in arriving)
        taken_bytes = stored_bytes + self._folder.sweeper.doomed[1] + arriving_bytes
        free_bytes = self._folder.free_bytes()
        tight = free_bytes < self._limits.reserve_bytes + arriving_bytes or taken_bytes > self._limits.quota_bytes
        if tight:
            self._folder.sweeper.sweep()
            free_bytes = self._folder.free_bytes()
        elif not aged:
            return []
        leaving = {entry.row for entry in dropped}
        evictions = retention.evictions(
            self._limits,
            stored_bytes=stored_bytes - sum(entry.size_bytes for entry in dropped),
            events_bytes=index.usage.lanes()[Lane.EVENTS][1],
            free_bytes=free_bytes,
            incoming=[
                replace(entry.as_held(), row=_ARRIVING + number)  # newer than anything stored
                for number, entry in enumerate(arriving)
            ],
            expired=[entry.as_held() for entry in aged if entry.row not in leaving],
            data=retention.merge_by_sacrifice(
                (entry.as_held() for entry in entries if entry.row not in leaving)
                for entries in (
                    index.queues.next_to_evict(Lane.LIVE),
                    index.queues.next_to_evict(Lane.BACKLOG),
                    index.queues.checkpoints_to_evict(),
                )
            ),
            events=(entry.as_held() for entry in index.queues.next_to_evict(Lane.EVENTS)),
        )
        found: list[tuple[Entry, Reason]] = []
        for eviction in evictions:
            number = eviction.batch.row - _ARRIVING
            entry = arriving[number] if number >= 0 else index.rows.at(eviction.batch.row)
            if entry is not None:
                found.append((entry, eviction.reason))
        return found
