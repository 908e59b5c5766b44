"""Keeps the batches that were not answered in time, and decides when to send them again.  This file is pure.

Invariant: a batch that waits here holds no place in the in-flight window, and is sent at growing intervals.

Each time that a batch is sent is one *try*.  A try without an answer counts only when the receiver has answered
another batch that was sent at the same time or later.  Then the receiver is not away, but does not answer this one
batch.  For example, the body of the batch may have a format that only a newer receiver can read.  After REPEATS tries
that count, the batch is set aside: it travels as backlog from then on, and is sent rarely.  While the receiver answers
no batch at all, it is away, and no try counts.
"""

import math
from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.spool.batch import Entry

Key = tuple[str, int]

REPEATS: Final = 3  # acknowledgements get lost with connections, but not three in a row while others arrive
ASIDE_MIN_S: Final = 600.0  # enrolling a vehicle again, or setting a clock, takes minutes
ASIDE_CAP_S: Final = 6 * 3_600.0  # four times a day costs little, and is soon enough after days of waiting
MAX_UNANSWERED: Final = 2_048  # 17 hours of 30 s windows; half a kilobyte of memory each


@dataclass(slots=True)
class Silent:
    """A batch without an answer.

    `lane` is the lane in which the batch travels, which may differ from the lane that it was sealed for.
    """

    entry: Entry
    lane: Lane
    sent_at_s: float
    due_s: float
    times: int = 0  # tries that count
    open: bool = True  # whether the last try may still count


class Unanswered:
    """Holds all unanswered batches.  It outlives connections, because the end of a connection answers no batch."""

    def __init__(self) -> None:
        self._batches: dict[Key, Silent] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def is_full(self) -> bool:
        """Return whether MAX_UNANSWERED batches are held.  New backlog must then wait until some are answered."""
        return len(self._batches) >= MAX_UNANSWERED

    @property
    def set_aside(self) -> int:
        """Return how many batches are set aside."""
        return sum(silent.times >= REPEATS for silent in self._batches.values())

    @property
    def keys(self) -> Set[Key]:
        """The ids of the unanswered batches."""
        return self._batches.keys()

    def get(self, key: Key) -> Entry | None:
        """Return an unanswered batch, or None."""
        silent = self._batches.get(key)
        return None if silent is None else silent.entry

    def note(self, entry: Entry, lane: Lane, sent_at_s: float, now_s: float) -> None:
        """Note that a batch got no answer in time.  It is due to be sent again at once, unless it is set aside."""
        silent = self._batches.get(entry.key)
        if silent is None:
            if self.is_full:  # fresh data must go on, so one batch is forgotten; the backlog will bring it again
                del self._batches[max(self._batches, key=lambda key: self._batches[key].due_s)]
            silent = self._batches[entry.key] = Silent(entry, lane, sent_at_s, now_s)
        silent.sent_at_s, silent.due_s, silent.open = sent_at_s, now_s, True
        if silent.times >= REPEATS:
            silent.due_s = sent_at_s + _patience_s(silent.times, math.inf)

    def others_answered(self, sent_at_s: float, timeout_s: float) -> None:
        """Count each try at or before `sent_at_s`, because the receiver answered a batch that was sent at that time.

        `timeout_s` is the wait after the first try that counts.  Each further one doubles the wait, until the
        batch is set aside.
        """
        for silent in self._batches.values():
            if silent.open and silent.sent_at_s <= sent_at_s:
                silent.open = False
                silent.times += 1
                silent.due_s = silent.sent_at_s + _patience_s(silent.times, timeout_s)
                if silent.times >= REPEATS:
                    silent.lane = Lane.BACKLOG

    def resent(self, key: Key) -> None:
        """Note that a batch is sent again.  A previous try that does not count yet will never count."""
        if (silent := self._batches.get(key)) is not None:
            silent.open = False

    def hurry(self, keys: Collection[Key], now_s: float) -> None:
        """Make these batches due now, because the reason for the missing answers is gone."""
        for key in keys:
            if (silent := self._batches.get(key)) is not None:
                silent.due_s, silent.open = now_s, False

    def forget(self, key: Key) -> None:
        """Forget a batch that was answered or left the spool."""
        self._batches.pop(key, None)

    def due(self, now_s: float) -> list[Silent]:
        """Return the batches to send again now, in the order in which they were sent."""
        return sorted((s for s in self._batches.values() if s.due_s <= now_s), key=lambda silent: silent.sent_at_s)

    def next_due_s(self, now_s: float) -> float:
        """Return when the next batch that is not due yet becomes due, or infinity if there is none."""
        return min((s.due_s for s in self._batches.values() if s.due_s > now_s), default=math.inf)


def _patience_s(times: int, timeout_s: float) -> float:
    if times < REPEATS:
        return timeout_s * 2.0 ** (times - 1)
    return min(ASIDE_CAP_S, ASIDE_MIN_S * 2.0 ** min(times - REPEATS, 32))
