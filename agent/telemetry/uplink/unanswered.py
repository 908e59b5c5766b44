"""Batches that were not answered in time: which of them to send again, and when.  Pure.

Invariant: a batch that waits here holds no place in the in-flight window, and is sent at growing intervals.

A try counts once the receiver answered something that was sent later.  Then it is this batch that gets no answer: its
vehicle is not enrolled any more, or its time is beyond what the receiver accepts.  After REPEATS such tries the batch
is set aside: it belongs to the backlog from then on, and is tried rarely.  While the receiver answers nothing at all it
is away, and no try counts.
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
    """A batch without an answer.  `lane` is the one in which it travels, not the one that it was sealed for."""

    entry: Entry
    lane: Lane
    sent_at_s: float
    due_s: float
    times: int = 0  # tries that count
    open: bool = True  # whether the last try may yet count


class Unanswered:
    """All unanswered batches.  The record outlives connections: a new connection does not answer old batches."""

    def __init__(self) -> None:
        self._batches: dict[Key, Silent] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def is_full(self) -> bool:
        """Whether the limit of memory is reached: new backlog must wait until some of these are answered."""
        return len(self._batches) >= MAX_UNANSWERED

    @property
    def set_aside(self) -> int:
        """How many batches are set aside."""
        return sum(silent.times >= REPEATS for silent in self._batches.values())

    @property
    def keys(self) -> Set[Key]:
        """The ids of these batches."""
        return self._batches.keys()

    def note(self, entry: Entry, lane: Lane, sent_at_s: float, now_s: float) -> None:
        """Note that no answer came in time: the batch is sent again as soon as possible, unless it is set aside."""
        silent = self._batches.get(entry.key)
        if silent is None:
            if self.is_full:  # fresh data goes on: one batch is forgotten here, and found again with the backlog
                del self._batches[max(self._batches, key=lambda key: self._batches[key].due_s)]
            silent = self._batches[entry.key] = Silent(entry, lane, sent_at_s, now_s)
        silent.sent_at_s, silent.due_s, silent.open = sent_at_s, now_s, True
        if silent.times >= REPEATS:
            silent.due_s = sent_at_s + _patience_s(silent.times, math.inf)

    def others_answered(self, sent_at_s: float, timeout_s: float) -> None:
        """Count tries up to `sent_at_s`, because a batch of that time was answered; `timeout_s`: the first wait."""
        for silent in self._batches.values():
            if silent.open and silent.sent_at_s <= sent_at_s:
                silent.open = False
                silent.times += 1
                silent.due_s = silent.sent_at_s + _patience_s(silent.times, timeout_s)
                if silent.times >= REPEATS:
                    silent.lane = Lane.BACKLOG

    def resent(self, key: Key) -> None:
        """Note that the batch is sent again: the try before does not count any more."""
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
        """Return what to send again now, the longest waiting first."""
        return sorted((s for s in self._batches.values() if s.due_s <= now_s), key=lambda silent: silent.sent_at_s)

    def next_due_s(self, now_s: float) -> float:
        """Return when the next batch falls due that is not due yet; infinite where there is none."""
        return min((s.due_s for s in self._batches.values() if s.due_s > now_s), default=math.inf)


def _patience_s(times: int, timeout_s: float) -> float:
    if times < REPEATS:
        return timeout_s * 2.0 ** (times - 1)
    return min(ASIDE_CAP_S, ASIDE_MIN_S * 2.0 ** min(times - REPEATS, 32))
