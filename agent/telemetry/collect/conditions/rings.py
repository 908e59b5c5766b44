"""The rings of one signal table and sender, and the samples of a block that are on their way into them.

This file is pure.  Samples of a block enter the rings only up to the place at which a collection closes.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.conditions.ring import Ring
from agent.telemetry.collect.thinning import Rows


class KeptSet(msgspec.Struct, frozen=True, eq=False):
    """Samples of a block that several signals keep together.

    `members` are their indices among the signals that the campaign takes from the table, and `rows` their rows in
    `block`.  `places` (n,), ascending, has the own frame of each sample, and `samples` (n,) its index in `block`.
    """

    members: tuple[int, ...]
    places: NDArray[np.int64]
    block: SignalBlock
    rows: Rows
    samples: Rows

    def raw_of(self, member: int) -> NDArray[np.int64]:
        """Return the raw values (n,) of one of `members`, given by its place among them."""
        raw: NDArray[np.int64] = self.block.raw[self.rows[member]]
        return raw if len(self.samples) == len(raw) else raw[self.samples]


class Coming:
    """Samples of a block that have not entered their ring yet."""

    def __init__(self, ring: Ring, kept: KeptSet, rows: Rows) -> None:
        self.ring = ring
        self._kept = kept
        self._rows = rows[:, None]
        self._entered = 0

    @property
    def next_place(self) -> int:
        """Return the own frame of the first sample that has not entered."""
        return int(self._kept.places[self._entered])

    def enter(self, place: int | None) -> bool:
        """Let the samples before `place` enter the ring; None means all.  Return whether some are left."""
        kept, start = self._kept, self._entered
        stop = len(kept.places) if place is None else int(kept.places.searchsorted(place))
        if stop > start:
            # Only the newest samples find room in the ring.
            samples = kept.samples[max(start, stop - self.ring.size) : stop]
            self.ring.add(kept.block.t_ns[samples] // 1_000, kept.block.raw[self._rows, samples])
        self._entered = stop
        return stop < len(kept.places)


class Rings:
    """Holds the rings of one signal table and sender.

    `sizes` has the size of the ring of each signal, or None for a signal that only the condition names.  Signals share
    a ring as long as their samples are kept together.
    """

    def __init__(self, sizes: Sequence[int | None]) -> None:
        by_size: dict[int, list[int]] = {}
        for member, size in enumerate(sizes):
            if size is not None:
                by_size.setdefault(size, []).append(member)
        self._count = len(sizes)
        rings = [Ring(tuple(members), size) for size, members in by_size.items()]
        self._rings = {member: ring for ring in rings for member in ring.members}

    def coming(self, kept_sets: Iterable[KeptSet]) -> list[Coming]:
        """Return the samples of a block, which enter the rings later."""
        kept_sets = list(kept_sets)
        self._split(kept_sets)
        found = []
        for kept in kept_sets:
            row_of = {member: row for row, member in enumerate(kept.members)}
            rings = dict.fromkeys(self._rings[member] for member in kept.members if member in self._rings)
            found += [Coming(ring, kept, kept.rows[[row_of[member] for member in ring.members]]) for ring in rings]
        return found

    def filled(self) -> list[Ring]:
        """Return the rings that hold samples."""
        return [ring for ring in dict.fromkeys(self._rings.values()) if len(ring)]

    def _split(self, kept_sets: Sequence[KeptSet]) -> None:
        """Split the rings whose signals are not all kept together in this block."""
        if len(kept_sets) == 1 and len(kept_sets[0].members) == self._count:
            return
        set_of = {member: number for number, kept in enumerate(kept_sets) for member in kept.members}
        for ring in list(dict.fromkeys(self._rings.values())):
            parts: dict[int | None, list[int]] = {}
            for member in ring.members:
                parts.setdefault(set_of.get(member), []).append(member)
            if len(parts) > 1:
                for part in ring.split([tuple(part) for part in parts.values()]):
                    self._rings.update(dict.fromkeys(part.members, part))
