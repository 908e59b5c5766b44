"""Computes the VSS paths that one consumer collects, as blocks of their signal tables.  This file is pure.

Each consumer has a state of its own, so what it collects does not depend on other consumers.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.signal_tables import SignalTables, Wants, all_wants
from agent.telemetry.collect.thinning import Rule
from agent.telemetry.collect.vss import EntryState, by_table


class MappedSignals:
    """Computes paths from the signals that feed them.

    `rules` has, for each wanted table of a path, the rule by which the consumer thins its samples.  Where a rule has an
    interval, the interval takes the place of the mapping's.  Where a rule asks for changes only, the mapping does, too.
    """

    def __init__(self, tables: SignalTables, rules: Mapping[int, Rule]) -> None:
        self._paths = {number: tables.mapped[number] for number in rules}
        self._states = {}
        for number, path in self._paths.items():
            rule = rules[number]
            interval_us = rule.interval_ns // 1_000 if rule.interval_ns else path.entry.interval_us
            on_change = rule.on_change or path.entry.on_change
            entry = msgspec.structs.replace(path.entry, interval_us=interval_us, on_change=on_change)
            self._states[number] = EntryState.at(entry, tables, path.places)

    @property
    def wants(self) -> Wants:
        """Return the signals that feed the paths."""
        return all_wants({place.table: (place.signal,)} for state in self._states.values() for place in state.places)

    def blocks(self, blocks: Sequence[SignalBlock]) -> list[SignalBlock]:
        """Return the samples of the paths that these blocks give, one block for each path that has any."""
        if not self._states:
            return []
        of_tables = by_table(blocks)
        made = []
        for number, state in self._states.items():
            path = self._paths[number]
            given = [(use, path.raw_of(use.value, use.raw)) for use in state.take(of_tables)]
            kept = [(use, raw) for use, raw in given if raw is not None]
            if kept:
                t_ns = np.array([use.t_us for use, _ in kept], np.int64) * 1_000
                rows = np.array([use.row for use, _ in kept], np.int64)
                raw = np.array([[raw for _, raw in kept]], np.int64)
                made.append(SignalBlock(number, t_ns, (0,), raw, None, None, rows))
        return made
