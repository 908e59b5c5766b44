"""Holds the rings of one campaign, and makes collections of what they hold.  This file is pure."""

import heapq
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.up.columns import ColumnGroup, SignalInfo
from agent.telemetry.collect.conditions.intake import OwnFrames, Signals
from agent.telemetry.collect.conditions.ring import Ring, Samples
from agent.telemetry.collect.conditions.rings import Coming, Rings
from agent.telemetry.collect.conditions.triggers import Edges, Trigger
from agent.telemetry.collect.senders import NO_SENDER, Key


class Collection(msgspec.Struct, frozen=True, eq=False):
    """Holds what a trigger sends: `groups` of samples, and the names that rose while it was open."""

    trigger: Trigger
    groups: tuple[ColumnGroup, ...]
    edges: tuple[Edges, ...]


class _SignalSet(msgspec.Struct, frozen=True, eq=False):
    """The descriptions of the signals in one ring, and the indices of these signals in the campaign's list."""

    signals: tuple[SignalInfo, ...]
    tables: tuple[Mapping[int, str], ...]
    numbers: NDArray[np.int64]


class CampaignRings:
    """Holds the rings of all streams of one campaign.  Samples of a block enter them up to the place of a closing."""

    def __init__(self, signals: Signals) -> None:
        self._taken = signals.taken
        self._rings: dict[Key, Rings] = {}
        # Rings only ever split, so there are at most twice as many sets as signals of each table.
        self._sets: dict[tuple[int, tuple[int, ...]], _SignalSet] = {}
        self._coming: list[tuple[int, int, Coming]] = []  # a heap by the own frame of the next sample

    def begin_block(self, own: OwnFrames) -> None:
        """Take the kept samples of a block, which enter the rings later."""
        coming: list[Coming] = []
        for key, kept_sets in own.kept_sets:
            rings = self._rings.get(key)
            if rings is None:
                rings = self._rings[key] = Rings(self._taken[key[0]].sizes)
            coming += rings.coming(kept_sets)
        self._coming = [(each.next_place, number, each) for number, each in enumerate(coming)]
        heapq.heapify(self._coming)

    def enter(self, place: int) -> None:
        """Let the samples of the own frames before `place` enter their rings."""
        while self._coming and self._coming[0][0] < place:
            _, number, coming = self._coming[0]
            if coming.enter(place):
                heapq.heapreplace(self._coming, (coming.next_place, number, coming))
            else:
                heapq.heappop(self._coming)

    def end_block(self) -> None:
        """Let all samples of the block enter their rings."""
        for _, _, coming in self._coming:
            coming.enter(None)
        self._coming = []

    def take(self, trigger: Trigger) -> tuple[ColumnGroup, ...]:
        """Remove all samples, which `trigger` sends, and return them."""
        return tuple(self._group(key, ring, ring.take(), trigger) for key, ring in self._filled())

    def fresh(self, trigger: Trigger) -> tuple[ColumnGroup, ...]:
        """Return the samples that no checkpoint has, without removing them.  `trigger` has opened the collection."""
        groups = (self._group(key, ring, ring.fresh(), trigger) for key, ring in self._filled())
        return tuple(group for group in groups if len(group.t_us))

    def checkpointed(self) -> None:
        """Note that the last result of `fresh` is durable."""
        for _, ring in self._filled():
            ring.checkpointed()

    def _filled(self) -> Iterable[tuple[Key, Ring]]:
        for key in sorted(self._rings):
            for ring in self._rings[key].filled():
                yield key, ring

    def _group(self, key: Key, ring: Ring, samples: Samples, trigger: Trigger) -> ColumnGroup:
        t_us, raw = samples
        known = self._sets.get((key[0], ring.members))
        if known is None:
            taken = self._taken[key[0]]
            infos, tables = zip(*(taken.signals[member] for member in ring.members), strict=True)
            numbers = np.array([taken.numbers[member] for member in ring.members], np.int64)
            known = self._sets[key[0], ring.members] = _SignalSet(infos, tables, numbers)
        sender = None if key[1] == NO_SENDER else key[1]
        return ColumnGroup(t_us, known.signals, raw, known.tables, sender, known.numbers, trigger.number)
