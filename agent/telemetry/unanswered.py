"""Batches that nobody answered for in time: which of them to send again, and when.  Pure.

Invariant: what waits here holds no place in the in-flight window, and is sent at growing intervals.  A try counts once
the receiver answered for something that was sent later: then it is this batch that gets no answer (its vehicle is not
enrolled any more, its time is beyond what the receiver takes), and after REPEATS of them it is set aside: part of the
backlog from then on, and tried rarely.  While nobody answers at all nothing is counted: the receiver is away.
"""

import math
from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.spool_batch import Entry

Key = tuple[str, int]

REPEATS: Final = 3  # acknowledgements get lost with connections; three in a row, while others arrive, do not
ASIDE_MIN_S: Final = 600.0  # whoever enrols a vehicle again, or mends a clock, takes minutes
ASIDE_CAP_S: Final = 6 * 3_600.0  # four times a day costs little, and is soon enough for what waited for days
MAX_UNANSWERED: Final = 2_048  # 17 hours of 30 s windows; half a kilobyte of memory each


@dataclass(slots=True)
class Silent:
    """A batch without an answer.  `lane`: in which it travels, which is not the one that it was sealed for."""

    entry: Entry
    lane: Lane
    sent_at_s: float
    due_s: float
    times: int = 0  # tries that count
    open: bool = True  # whether the last try may yet count


class Unanswered:
    """All of them; outlives connections, as a new connection makes nothing answerable."""

    def __init__(self) -> None:
        self._batches: dict[Key, Silent] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def is_full(self) -> bool:
        """Whether new backlog must wait until some of these are answered or given up: the limit of memory."""
        return len(self._batches) >= MAX_UNANSWERED

    @property
    def set_aside(self) -> int:
        """How many are set aside."""
        return sum(silent.times >= REPEATS for silent in self._batches.values())

    @property
    def keys(self) -> Set[Key]:
        """Their names."""
        return self._batches.keys()

    def note(self, entry: Entry, lane: Lane, sent_at_s: float, now_s: float) -> None:
        """It was sent, and no answer came in time: to be sent again as soon as may be, unless it is set aside."""
        silent = self._batches.get(entry.key)
        if silent is None:
            if self.is_full:  # fresh data goes on: one is forgotten, and found again with the backlog
                del self._batches[max(self._batches, key=lambda key: self._batches[key].due_s)]
            silent = self._batches[entry.key] = Silent(entry, lane, sent_at_s, now_s)
        silent.sent_at_s, silent.due_s, silent.open = sent_at_s, now_s, True
        if silent.times >= REPEATS:
            silent.due_s = sent_at_s + _patience_s(silent.times, math.inf)

    def others_answered(self, sent_at_s: float, timeout_s: float) -> None:
        """Something that was sent at `sent_at_s` is answered; `timeout_s`: the patience with a first try."""
        for silent in self._batches.values():
            if silent.open and silent.sent_at_s <= sent_at_s:
                silent.open = False
                silent.times += 1
                silent.due_s = silent.sent_at_s + _patience_s(silent.times, timeout_s)
                if silent.times >= REPEATS:
                    silent.lane = Lane.BACKLOG

    def resent(self, key: Key) -> None:
        """It is sent again: this try counts, and the one before no longer."""
        if (silent := self._batches.get(key)) is not None:
            silent.open = False

    def hurry(self, keys: Collection[Key], now_s: float) -> None:
        """What kept these from being answered is mended."""
        for key in keys:
            if (silent := self._batches.get(key)) is not None:
                silent.due_s, silent.open = now_s, False

    def forget(self, key: Key) -> None:
        """It was answered, or is no longer in the spool."""
        self._batches.pop(key, None)

    def due(self, now_s: float) -> list[Silent]:
        """What to send again now, longest waiting first."""
        return sorted((s for s in self._batches.values() if s.due_s <= now_s), key=lambda silent: silent.sent_at_s)

    def next_due_s(self, now_s: float) -> float:
        """When the next one is due, of those that are not yet; infinite: none."""
        return min((s.due_s for s in self._batches.values() if s.due_s > now_s), default=math.inf)


def _patience_s(times: int, timeout_s: float) -> float:
    if times < REPEATS:
        return timeout_s * 2.0 ** (times - 1)
    return min(ASIDE_CAP_S, ASIDE_MIN_S * 2.0 ** min(times - REPEATS, 32))
