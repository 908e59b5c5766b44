"""Makes room for new batches in the spool by evicting batches.

agent.telemetry.spool.retention decides which batches to evict.  This file asks for a decision only if a batch is over
the age limit, or if the new batches would exceed another limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.formats.up.losses import Reason
from agent.telemetry.spool import retention
from agent.telemetry.spool.batch import BatchId, Entry
from agent.telemetry.spool.boots import observe, over_age
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.recovery import lose
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.transactions import Transactions

AGED_AT_ONCE: Final = 64  # one append evicts at most this many batches over age; more than it usually adds
_ARRIVING: Final = 2**62


class Room:
    """Keeps the spool within its limits.  The caller must hold the `turn` of the transactions."""

    def __init__(
        self, transactions: Transactions, folder: SpoolFolder, limits: Limits, clock: Callable[[], Clock]
    ) -> None:
        self._transactions = transactions
        self._folder = folder
        self._limits = limits
        self._clock = clock

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next batch on.  The next batch evicts what exceeds them."""
        self._limits = limits

    def make(self, index: Index, arriving: Sequence[Entry], dropped: Sequence[Entry]) -> dict[BatchId, Reason]:
        """Evict batches as the limits demand; return which of the `arriving` batches must not be stored, and why.

        `dropped` are the stored checkpoints that `arriving` will replace.  Raises Transient.
        """
        try:
            evicted = self._evicted(index, arriving, dropped)
        except OSError as error:
            raise self._folder.refuses(error) from error
        self.lose([(entry, reason, "") for entry, reason in evicted if entry.row])
        return {entry.key: reason for entry, reason in evicted if not entry.row}

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
