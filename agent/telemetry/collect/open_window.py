"""Holds an open window's samples of one signal table and sender, and groups them into columns.  This file is pure.

Invariant: if samples of several signals were kept at the same times, they are held, stored and sent together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.up.columns import ColumnGroup, Described, SignalInfo

_SETS: Final = 256  # cached sets of signals kept at the same times; signals kept on change can form any number of sets


class Samples(msgspec.Struct, frozen=True, eq=False):
    """Samples of several signals that were kept at the same times of one increment.

    `t_us` has the shape (n,), and `raw` the shape (rows, n).  `members` (rows,) has the index of each row's signal
    among the collected signals.  `checkpoint` is the number, within the window, of the checkpoint that makes the
    samples durable.
    """

    t_us: NDArray[np.int64]
    raw: NDArray[np.int64]
    members: tuple[int, ...]
    checkpoint: int


class _SignalSet(msgspec.Struct, frozen=True, eq=False):
    """The descriptions of the signals in one column group, and the indices of these signals in the campaign's list."""

    signals: tuple[SignalInfo, ...]
    tables: tuple[Mapping[int, str], ...]
    numbers: NDArray[np.int64]


class HeldSamples:
    """Holds samples of the collected signals of one table and sender until their window closes.

    `signals` has the collected signals.  `first_number` is the index of the first of them in the campaign's list.
    `max_samples` says for each signal how many of its newest samples a window keeps; None means all samples.
    """

    def __init__(
        self,
        signals: Sequence[Described],
        first_number: int,
        max_samples: Sequence[int | None],
        source_address: int | None,
    ) -> None:
        self._signals = tuple(signals)
        self._first_number = first_number
        self._max_samples = tuple(max_samples)
        self._limited = any(most is not None for most in max_samples)
        self._source_address = source_address
        self._held: list[Samples] = []
        self._sets: dict[tuple[int, ...], _SignalSet] = {}

    @property
    def samples(self) -> int:
        """Count the held samples, one for each signal and time."""
        return sum(held.raw.size for held in self._held)

    @property
    def blocks(self) -> int:
        """Count the held memory blocks.  A test checks that their number is bounded."""
        return len(self._held)

    def add(self, samples: Samples) -> None:
        """Add samples.  Discard blocks in which no sample is among the `max_samples` newest of its signal."""
        self._held.append(samples)
        if not self._limited:
            return
        count = [0] * len(self._signals)
        needed = []
        for held in reversed(self._held):
            limits = [(count[index], self._max_samples[index]) for index in held.members]
            if any(most is None or newer < most for newer, most in limits):
                needed.append(held)
            for index in held.members:
                count[index] += len(held.t_us)
        self._held = needed[::-1]

    def clear(self) -> None:
        """Discard all samples, because the window closed."""
        self._held = []

    def groups(self, first_checkpoint: int = 0) -> Iterable[ColumnGroup]:
        """Return the held samples as column groups.

        Samples of checkpoints before `first_checkpoint` are left out.
        """
        held = self._held
        if first_checkpoint:
            held = [samples for samples in held if samples.checkpoint >= first_checkpoint]
        if not held:
            return ()
        if self._limited or any(samples.members != held[0].members for samples in held):
            return self._regrouped(held)
        t_us, raw = held[0].t_us, held[0].raw
        if len(held) > 1:
            t_us = np.concatenate([samples.t_us for samples in held])
            raw = np.concatenate([samples.raw for samples in held], axis=1)
        return (self._group(held[0].members, t_us, raw),)

    def _regrouped(self, held: Sequence[Samples]) -> Iterator[ColumnGroup]:
        """Yield groups of signals whose samples were kept at the same times throughout the window."""
        places: list[list[tuple[int, int]]] = [[] for _ in self._signals]  # (number in held, row) of each signal
        for number, samples in enumerate(held):
            for row, index in enumerate(samples.members):
                places[index].append((number, row))
        together: dict[tuple[int | None, ...], list[int]] = {}
        for index, most in enumerate(self._max_samples):
            if places[index]:
                if most is not None:
                    _trim(places[index], [len(samples.t_us) for samples in held], most)
                together.setdefault((most, *(number for number, _ in places[index])), []).append(index)
        for (most, *_), members in together.items():
            newest = slice(None if most is None else -most, None)
            chosen = [held[number] for number, _ in places[members[0]]]
            rows = [[places[index][i][1] for index in members] for i in range(len(chosen))]
            t_us = np.concatenate([samples.t_us for samples in chosen])[newest]
            raw = np.concatenate([samples.raw[row] for samples, row in zip(chosen, rows, strict=True)], axis=1)[
                :, newest
            ]
            yield self._group(tuple(members), t_us, raw)

    def _group(self, members: tuple[int, ...], t_us: NDArray[np.int64], raw: NDArray[np.int64]) -> ColumnGroup:
        known = self._sets.get(members)
        if known is None:
            if len(self._sets) >= _SETS:
                self._sets.clear()
            chosen = [self._signals[index] for index in members]
            known = self._sets[members] = _SignalSet(
                tuple(info for info, _ in chosen),
                tuple(table for _, table in chosen),
                np.array(members, np.int64) + self._first_number,
            )
        return ColumnGroup(t_us, known.signals, raw, known.tables, self._source_address, known.numbers)


def _trim(places: list[tuple[int, int]], sizes: Sequence[int], max_samples: int) -> None:
    """Drop the oldest blocks of a signal as long as its newer blocks hold at least `max_samples` samples."""
    held = sum(sizes[number] for number, _ in places)
    while held - sizes[places[0][0]] >= max_samples:
        held -= sizes[places.pop(0)[0]]
