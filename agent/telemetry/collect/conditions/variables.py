"""Holds the newest value of a variable, and spreads it over the frames of a block.  This file is pure."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.telemetry.collect.conditions.evaluator import Value


class Kept(msgspec.Struct, frozen=True, eq=False):
    """Kept samples of one variable from one stream.

    `places` (n,), ascending, has the own frame of each sample.  `values` (n,) has the physical values.
    """

    places: NDArray[np.int64]
    values: NDArray[np.float64]


class Spread(msgspec.Struct, frozen=True, eq=False):
    """The newest value of a variable at each of n own frames.

    `places`, ascending, has the own frame of each sample of the block, and `index` (n,) how many of them are at or
    before each own frame.
    """

    values: NDArray[np.float64]
    defined: NDArray[np.bool_]
    places: NDArray[np.int64]
    index: NDArray[np.int64]

    def part(self, start: int, stop: int) -> Value:
        """Return the value at the frames from `start` to `stop` - 1."""
        return self.values[start:stop], self.defined[start:stop]

    def newest(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the own frame of the newest sample at these frames, or -1 if it came before this block."""
        return np.concatenate(([-1], self.places))[self.index[start:stop]]


class LatestValue:
    """Remembers the newest sample of one variable, of whatever stream, from block to block.

    `sendable` says whether the campaign collects the variable; a sample that is never sent stays unsent.
    """

    def __init__(self, *, sendable: bool) -> None:
        self._value = 0.0
        self._defined = False
        self._sent = False
        self._sendable = sendable

    def spread(self, kept: Sequence[Kept], count: int) -> Spread:
        """Return the newest value at each of the `count` own frames of a block."""
        if len(kept) == 1:
            places, values = kept[0].places, kept[0].values
        else:
            places = np.concatenate([np.empty(0, np.int64), *(each.places for each in kept)])
            values = np.concatenate([np.empty(0), *(each.values for each in kept)])
            order = np.argsort(places, kind="stable")
            places, values = places[order], values[order]
        # Counting is faster than a binary search for each frame.  Index 0 is the sample from before this block.
        index = np.bincount(places, minlength=count).cumsum()
        values = np.concatenate(([self._value], values))[index]
        return Spread(values, (index > 0) | self._defined, places, index)

    def null(self, spread: Spread, start: int, stop: int, closed: int) -> NDArray[np.bool_]:
        """Return isNull at the frames from `start` to `stop` - 1.

        The last closing of a collection has sent the samples of the own frames before `closed`.  It is -1 if no
        collection was closed in this block.
        """
        undefined = ~spread.defined[start:stop]
        if not self._sendable:
            return undefined
        newest = spread.newest(start, stop)
        sent = (newest == -1) & self._sent if closed < 0 else newest < closed
        return undefined | sent

    def sent(self) -> None:
        """Note that a closing between two blocks has sent the newest sample."""
        self._sent = True

    def end_block(self, spread: Spread, closed: int) -> None:
        """Remember the newest sample of the block.  `closed` has the same meaning as in `null`."""
        if not len(spread.values):
            return
        newest = int(spread.places[-1]) if len(spread.places) else -1
        self._value = float(spread.values[-1])
        self._defined = bool(spread.defined[-1])
        self._sent = newest < closed if closed >= 0 else newest == -1 and self._sent
