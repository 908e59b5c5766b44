"""Finds triggers, and opens and closes collections.  This file is pure.

For each own frame, in this order:

1. The clock takes the time of the frame if that is later.  An open collection closes if the clock is past its end.
2. (The samples of the frame are taken in.)
3. The condition is evaluated.  If it is not true, it *was not true* from now on.  If it is true, and the interval since
   the last trigger is over: if no collection is open, and the condition was not true before or need not have been
   (ALWAYS), a trigger opens a collection.  Triggered or not, the condition *was true* from now on.
4. A collection without a duration closes at once.

If a frame is more than a minute before the clock, the clock was set.  An open collection closes before that frame, and
the clock and the time of the last trigger take its time.

The work is proportional to the number of triggers, not to the number of frames.  Between two triggers the next frame
that matters is found by binary search.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.down.conditions.scheme import Condition
from agent.telemetry.collect.conditions.evaluator import Evaluated

CLOCK_SET_BACK_NS: Final = 60 * 10**9
_NONE: Final = np.empty(0, np.intp)


class Trigger(msgspec.Struct, frozen=True):
    """A trigger: its `number`, from 1, the time of its frame, and the end of its collection.

    `names` are those of the pairs of MULTI_RISING_EDGE_TRIGGER that rose.
    """

    number: int
    t_ns: int
    until_ns: int
    names: tuple[str, ...]


class Opened(msgspec.Struct, frozen=True):
    """Says that `trigger` has opened a collection."""

    trigger: Trigger


class Edges(msgspec.Struct, frozen=True):
    """Says that conditions with these names rose at `t_ns`, while a collection was open."""

    t_ns: int
    names: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True):
    """Says that the open collection is closed; it sends the samples of the own frames before `place`."""

    place: int


Step = Opened | Edges | Closed


@dataclass(slots=True)
class State:
    """Holds what is carried from block to block.  `clock_ns` is None before the first own frame."""

    clock_ns: int | None = None
    last_ns: int = 0
    was_true: bool = True
    number: int = 0
    open: Trigger | None = None


class Frames(msgspec.Struct, frozen=True, eq=False):
    """The times of own frames between two settings of the clock: of each frame, and of the clock at each frame.

    `first` is the number of the first of them among the own frames of the block.
    """

    first: int
    t_ns: NDArray[np.int64]
    clock_ns: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Return the number of the own frame after the last one."""
        return self.first + len(self.t_ns)


def between_settings(state: State, t_ns: NDArray[np.int64]) -> Iterator[tuple[Frames, bool]]:
    """Yield the own frames of a block between settings of the clock, and whether the clock was set before them.

    The caller must walk through the frames, and set the clock by `set_clock`, before it asks for the next ones.
    """
    first, was_set = 0, False
    while first < len(t_ns):
        start_ns = int(t_ns[first])
        if state.clock_ns is None:
            state.clock_ns = state.last_ns = start_ns
        elif not was_set and start_ns < state.clock_ns - CLOCK_SET_BACK_NS:
            was_set = True
        before_ns = start_ns if was_set else state.clock_ns
        clock_ns = np.maximum.accumulate(np.maximum(t_ns[first:], before_ns))
        back = t_ns[first + 1 :] < clock_ns[:-1] - CLOCK_SET_BACK_NS
        count = int(back.argmax()) + 1 if back.any() else len(clock_ns)
        yield Frames(first, t_ns[first : first + count], clock_ns[:count]), was_set
        first, was_set = first + count, True


class Walk:
    """Walks through evaluated frames of one campaign, and changes its `state`."""

    def __init__(self, condition: Condition, expiry_ns: int, names: Sequence[str], state: State) -> None:
        self._condition = condition
        self._expiry_ns = expiry_ns
        self._names = names
        self._state = state

    def set_clock(self, frames: Frames) -> Iterator[Step]:
        """Begin again at the first of `frames`, because the clock was set back."""
        if self._state.open is not None:
            yield self._close(frames.first)
        self._state.last_ns = int(frames.t_ns[0])

    def steps(self, frames: Frames, evaluated: Evaluated, first: int) -> Iterator[tuple[Step, int]]:
        """Yield what happens at the frames for which the condition was evaluated, beginning with frame `first`.

        Each step comes with the number of the next frame whose evaluation counts.  If the caller stops after a step,
        it must evaluate again from that frame on.
        """
        seen = _Seen(frames, evaluated, first, self._condition.interval_ns)
        place, stop = first, first + len(evaluated.true)
        while place < stop:
            if self._state.open is not None:
                end = seen.after(self._state.open.until_ns)
                yield from self._edges(seen, place, end)
                self._pass(seen, place, end)
                if end < stop:
                    yield self._close(end), end
                place = end
                continue
            found = self._find(seen, place)
            self._pass(seen, place, stop if found is None else found)
            if found is None:
                return
            yield Opened(self._trigger(seen, found)), found + 1
            yield from self._edges(seen, found, found + 1)
            place = found + 1
            if not self._condition.post_trigger_ns:
                yield self._close(place), place

    def _find(self, seen: "_Seen", place: int) -> int | None:
        """Return the first frame from `place` on that triggers, or None."""
        due = seen.due(place, self._state.last_ns)
        if not self._condition.rising_edge:
            return seen.first_true(due)
        was_true = self._state.was_true and not seen.any_false(place, due)
        if not was_true:
            return seen.first_true(due)
        fallen = seen.first_false(due)
        return None if fallen is None else seen.first_true(fallen)

    def _pass(self, seen: "_Seen", start: int, stop: int) -> None:
        """Remember whether the condition was true, after frames that did not trigger."""
        due = min(seen.due(start, self._state.last_ns), stop)
        if due < stop:
            self._state.was_true = seen.is_true(stop - 1)
        elif seen.any_false(start, stop):
            # Within the interval, a true result changes nothing.
            self._state.was_true = False
        if start < stop:
            self._state.clock_ns = seen.clock_ns(stop - 1)

    def _trigger(self, seen: "_Seen", place: int) -> Trigger:
        state = self._state
        clock_ns = seen.clock_ns(place)
        until_ns = min(clock_ns + self._condition.post_trigger_ns, self._expiry_ns)
        state.number += 1
        state.clock_ns = state.last_ns = clock_ns
        state.was_true = True
        state.open = Trigger(state.number, seen.t_ns(place), until_ns, self._names_at(seen, place))
        return state.open

    def _edges(self, seen: "_Seen", start: int, stop: int) -> Iterator[tuple[Step, int]]:
        for place in seen.with_edges(start, stop) if self._names else ():
            yield Edges(seen.t_ns(place), self._names_at(seen, place)), place + 1

    def _names_at(self, seen: "_Seen", place: int) -> tuple[str, ...]:
        return tuple(self._names[pair] for pair in seen.pairs_that_rose(place)) if self._names else ()

    def _close(self, place: int) -> Closed:
        self._state.open = None
        return Closed(place)


class _Seen:
    """Answers questions about evaluated frames, which are numbered as the own frames of the block."""

    def __init__(self, frames: Frames, evaluated: Evaluated, first: int, interval_ns: int) -> None:
        offset, count = first - frames.first, len(evaluated.true)
        self._first = first
        self._stop = first + count
        self._evaluated = evaluated
        self._interval_ns = interval_ns
        self._t_ns = frames.t_ns[offset : offset + count]
        self._clock_ns = frames.clock_ns[offset : offset + count]
        self._true = np.flatnonzero(evaluated.true) + first
        self._false = np.flatnonzero(~evaluated.true) + first
        self._edges = np.flatnonzero(evaluated.rose.any(axis=0)) + first if len(evaluated.rose) else _NONE

    def is_true(self, place: int) -> bool:
        return bool(self._evaluated.true[place - self._first])

    def t_ns(self, place: int) -> int:
        return int(self._t_ns[place - self._first])

    def clock_ns(self, place: int) -> int:
        return int(self._clock_ns[place - self._first])

    def after(self, until_ns: int) -> int:
        """Return the first frame at which the clock is past `until_ns`, or the frame after the last one."""
        return self._first + int(self._clock_ns.searchsorted(until_ns, side="right"))

    def due(self, place: int, last_ns: int) -> int:
        """Return the first frame from `place` on at which the interval after a trigger at `last_ns` is over."""
        return max(place, self._first + int(self._clock_ns.searchsorted(last_ns + self._interval_ns)))

    def first_true(self, place: int) -> int | None:
        return _first_from(self._true, place)

    def first_false(self, place: int) -> int | None:
        return _first_from(self._false, place)

    def any_false(self, start: int, stop: int) -> bool:
        found = _first_from(self._false, start)
        return found is not None and found < stop

    def with_edges(self, start: int, stop: int) -> list[int]:
        found: list[int] = self._edges[slice(*self._edges.searchsorted((start, stop)))].tolist()
        return found

    def pairs_that_rose(self, place: int) -> list[int]:
        found: list[int] = np.flatnonzero(self._evaluated.rose[:, place - self._first]).tolist()
        return found


def _first_from(places: NDArray[np.intp], place: int) -> int | None:
    index = int(places.searchsorted(place))
    return int(places[index]) if index < len(places) else None
