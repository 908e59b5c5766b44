"""Turns signal blocks into own frames, kept samples and the values of variables.  This file is pure.

An *own frame* of a campaign is a frame within its start and expiry that carries a sample of a signal that the campaign
collects or names in its condition, whether the sample is kept or not.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.formats.down.campaign import Campaign, SignalRule
from agent.formats.down.conditions.scheme import RING_SAMPLE_BYTES
from agent.formats.down.conditions.tree import variables
from agent.formats.up.columns import Described
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.campaign import active_rows, rules_of
from agent.telemetry.collect.conditions.rings import KeptSet
from agent.telemetry.collect.conditions.variables import Kept
from agent.telemetry.collect.names import Place
from agent.telemetry.collect.senders import Key, key_of
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.collect.thinning import Rows, Rule, Thinning
from can_dbc.values import physical

_NOWHERE: Final = np.empty(0, np.intp)
_KEEP_ALL: Final = SignalRule("", 0, None, on_change=False)


class Taken(msgspec.Struct, frozen=True):
    """The signals of one table that a campaign takes, with one element for each.

    `indices` are their indices in the table, and `signals` their descriptions.  `sizes` has the size of each ring, or
    None for a signal that only the condition names; `numbers` its index in the campaign's list, or -1.  `variables`
    has the names that the condition uses for it.
    """

    indices: tuple[int, ...]
    signals: tuple[Described, ...]
    sizes: tuple[int | None, ...]
    numbers: tuple[int, ...]
    variables: tuple[tuple[str, ...], ...]
    rules: tuple[Rule, ...]

    @property
    def ring_bytes(self) -> int:
        """Return the most memory that the samples of one sender take."""
        return sum(size * RING_SAMPLE_BYTES for size in self.sizes if size is not None)


class Signals(msgspec.Struct, frozen=True):
    """Says what a campaign takes from the signal tables of a vehicle.

    `taken` is by number of the table.  `described` lists the signals that are sent.  `unknown` has the variables that
    no database has, and `sendable` those that the campaign collects.
    """

    taken: Mapping[int, Taken]
    described: tuple[Described, ...]
    unknown: frozenset[str]
    sendable: frozenset[str]


def signals_of(campaign: Campaign, tables: SignalTables) -> Signals:
    """Find the signals that `campaign` collects or names in its condition."""
    assert campaign.condition is not None
    rules = rules_of(campaign, tables.names)
    named = {name: tables.names.find(name) for name in variables(campaign.condition.tree)}
    by_table: dict[int, dict[int, SignalRule]] = {}
    for place, rule in rules.items():
        by_table.setdefault(place.table, {})[place.signal] = rule
    for places in named.values():
        for place in places:
            by_table.setdefault(place.table, {}).setdefault(place.signal, _KEEP_ALL)
    taken: dict[int, Taken] = {}
    described: list[Described] = []
    for table in sorted(by_table):
        taken[table] = _taken(tables, table, dict(sorted(by_table[table].items())), named, len(described))
        described += [s for s, number in zip(taken[table].signals, taken[table].numbers, strict=True) if number >= 0]
    return Signals(
        taken,
        tuple(described),
        frozenset(name for name, places in named.items() if not places),
        frozenset(name for name, places in named.items() if any(place in rules for place in places)),
    )


def _taken(
    tables: SignalTables,
    table: int,
    ruled: Mapping[int, SignalRule],
    named: Mapping[str, Sequence[Place]],
    first_number: int,
) -> Taken:
    by_rule: dict[tuple[int, bool], list[int]] = {}
    numbers = []
    for member, rule in enumerate(ruled.values()):
        by_rule.setdefault((rule.interval_ns, rule.on_change), []).append(member)
        collected = rule.max_samples is not None
        numbers.append(first_number if collected else -1)
        first_number += collected
    return Taken(
        tuple(ruled),
        tuple(tables.tables[table].signals[index] for index in ruled),
        tuple(rule.max_samples for rule in ruled.values()),
        tuple(numbers),
        tuple(tuple(name for name, places in named.items() if Place(table, index) in places) for index in ruled),
        tuple(Rule(*how, np.array(members, np.intp)) for how, members in by_rule.items()),
    )


class OwnFrames(msgspec.Struct, frozen=True, eq=False):
    """The own frames of a block: their times (n,), the kept samples by stream, and those of each variable."""

    t_ns: NDArray[np.int64]
    kept_sets: Sequence[tuple[Key, list[KeptSet]]]
    variables: Mapping[str, list[Kept]]


class Intake:
    """Takes in the samples of one campaign, and remembers across blocks what thinning needs."""

    def __init__(self, campaign: Campaign, signals: Signals) -> None:
        self._campaign = campaign
        self._signals = signals
        self._thinning: dict[Key, Thinning] = {}
        self._positions: dict[int, tuple[tuple[int, ...], Rows]] = {}  # the layout of the last block of each table

    def take(self, blocks: Sequence[SignalBlock]) -> OwnFrames:
        """Return the own frames of `blocks`, which were delivered together.  There may be none."""
        found = [(block, *self._present(block)) for block in blocks]
        found = [each for each in found if len(each[2])]
        if not found:
            return OwnFrames(np.empty(0, np.int64), [], {})
        t_ns, places = _own_frames([(block, own) for block, _, own in found])
        kept_sets = []
        by_variable: dict[str, list[Kept]] = {}
        for (block, positions, own), place_of in zip(found, places, strict=True):
            sets = self._keep(block, positions, own, place_of)
            kept_sets.append((key_of(block), sets))
            self._add_variables(self._signals.taken[block.table], sets, by_variable)
        return OwnFrames(t_ns, kept_sets, by_variable)

    def _present(self, block: SignalBlock) -> tuple[Rows, Rows]:
        """Return the row of each taken signal in the block, and the samples that make own frames."""
        signals, positions = self._positions.get(block.table, ((), _NOWHERE))
        if signals != block.signals:
            row_of = {signal: row for row, signal in enumerate(block.signals)}
            positions = np.array([row_of[index] for index in self._signals.taken[block.table].indices], np.intp)
            self._positions[block.table] = block.signals, positions
        own = active_rows(block.t_ns, self._campaign.start_ns, self._campaign.expiry_ns)
        if block.valid is not None:
            own = own[block.valid[positions][:, own].any(axis=0)]
        return positions, own

    def _keep(self, block: SignalBlock, positions: Rows, own: Rows, place_of: NDArray[np.int64]) -> list[KeptSet]:
        key = key_of(block)
        thinning = self._thinning.get(key)
        if thinning is None:
            taken = self._signals.taken[block.table]
            thinning = self._thinning[key] = Thinning(taken.rules, len(taken.indices))
        return [
            KeptSet(members, place_of[samples], block, positions[list(members)], samples)
            for members, samples in thinning.choose(block, positions, own)
        ]

    @staticmethod
    def _add_variables(taken: Taken, sets: Sequence[KeptSet], by_variable: dict[str, list[Kept]]) -> None:
        for kept in sets:
            for row, member in enumerate(kept.members):
                for name in taken.variables[member]:
                    values = physical(taken.signals[member][0], kept.raw_of(row))
                    by_variable.setdefault(name, []).append(Kept(kept.places, values))


def _own_frames(found: Sequence[tuple[SignalBlock, Rows]]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the time of each own frame, and for each block the place of each of its samples among the own frames.

    `found` has the own samples of each block.  The place of another sample means nothing.
    """
    if len(found) == 1:
        ((block, own),) = found
        rows = _rows_of(block)[own]
        if (rows[1:] > rows[:-1]).all():  # a frame of a container may hold several samples of a table
            places = np.zeros(len(block), np.int64)
            places[own] = np.arange(len(own))
            return block.t_ns[own], [places]
    is_own = np.zeros(1 + max(int(_rows_of(block)[own[-1]]) for block, own in found), np.bool_)
    for block, own in found:
        is_own[_rows_of(block)[own]] = True
    place_of = np.cumsum(is_own, dtype=np.int64)
    t_ns = np.empty(place_of[-1], np.int64)
    place_of -= 1
    of_blocks = []
    for block, own in found:
        rows = np.minimum(_rows_of(block), len(place_of) - 1)
        of_blocks.append(place_of[rows])
        t_ns[of_blocks[-1][own]] = block.t_ns[own]
    return t_ns, of_blocks


def _rows_of(block: SignalBlock) -> NDArray[np.int64]:
    return np.arange(len(block)) if block.rows is None else block.rows
