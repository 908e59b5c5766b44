"""Measures what condition-based campaigns cost: early decoding, evaluation and rings.

The ten most frequent messages of a drive get a campaign each.  Its condition compares the signal with the most
different values with the median of these values.  It collects all signals of the message.  What triggers send is not
stored here, because a time-based campaign pays as much for the same bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from agent.formats.down.campaign import parse_campaign
from agent.formats.up.signals import SignalBlock
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.signal_tables import SignalTables, all_wants
from bench.by_cantools import CantoolsDecoder
from bench.drives import Drive
from can_dbc.frames import FrameBlock
from can_dbc.values import physical

CAMPAIGNS: Final = 10


class Conditions:
    """Runs the windows of a drive through ten condition-based campaigns, again and again, with ever later times."""

    def __init__(self, drive: Drive, windows: Sequence[FrameBlock], by_cantools: CantoolsDecoder) -> None:
        buses = drive.block.buses
        tables = SignalTables(buses, {buses[number]: plan for number, plan in drive.plans.items()})
        self._windows = windows
        self._tables = tables
        self._length_ns = int(drive.block.t_ns.max() - drive.block.t_ns.min()) + 10**9
        self._runs = 0
        every = tables.decoder({number: tuple(range(len(t.signals))) for number, t in enumerate(tables.tables)})
        blocks = tables.blocks(every.decode(drive.block).columns)
        blocks = sorted(blocks, key=len, reverse=True)[:CAMPAIGNS]
        self._collectors = [ConditionCollector(parse_campaign(_campaign(b, tables), "bench"), tables) for b in blocks]
        self._decoder = tables.decoder(all_wants(collector.wants for collector in self._collectors))
        self._decoded = [tables.blocks(self._decoder.decode(window).columns) for window in windows]
        self._by_cantools = by_cantools
        self.message = tables.tables[blocks[0].table].name
        """The message that the first campaign names."""

    def run(self) -> None:
        """Take all windows through all campaigns, from undecoded frames to closed collections."""
        for window in self._windows:
            blocks = self._later(self._tables.blocks(self._decoder.decode(window).columns))
            for collector in self._collectors:
                collector.take_blocks(blocks)
                collector.take_closed()
        self._runs += 1

    def one(self) -> None:
        """Take all windows, decoded already, through the first campaign."""
        for blocks in self._decoded:
            self._collectors[0].take_blocks(self._later(blocks))
            self._collectors[0].take_closed()
        self._runs += 1

    def one_by_cantools(self) -> None:
        """Decode the frames of the first campaign's message with cantools."""
        self._by_cantools.decode_message(self.message)

    def triggers(self) -> int:
        """Return how many collections one run closes."""
        closed = 0
        for blocks in self._decoded:
            for collector in self._collectors:
                collector.take_blocks(self._later(blocks))
                closed += len(collector.take_closed())
        self._runs += 1
        return closed

    def _later(self, blocks: Sequence[SignalBlock]) -> list[SignalBlock]:
        """Return the blocks with times after those of all earlier runs, because frames do not come twice."""
        shift_ns = self._runs * self._length_ns
        return [msgspec.structs.replace(block, t_ns=block.t_ns + shift_ns) for block in blocks]


def ratios(taken: Mapping[str, float]) -> dict[str, float]:
    """Return the figures for seconds `taken` by the pipeline and by the methods of Conditions."""
    return {
        "conditions_added_to_pipeline": taken["conditions 30s"] / taken["pipeline 30s"],
        "condition_ratio_cantools": taken["one condition"] / taken["one message by cantools"],
    }


def _campaign(block: SignalBlock, tables: SignalTables) -> dict[str, Any]:
    table = tables.tables[block.table]
    distinct = [len(np.unique(raw)) for raw in block.raw]
    row = int(np.argmax(distinct))
    info, _ = table.signals[block.signals[row]]
    threshold = float(np.median(physical(info, block.raw[row])))
    scheme = {
        "expression": f"$variable.`{info.name}` > {threshold!r}",
        "triggerMode": "RISING_EDGE",
        "minimumTriggerIntervalMs": 10_000,
    }
    return {
        "name": f"condition-{block.table}",
        "collectionScheme": {"conditionBasedCollectionScheme": scheme},
        "postTriggerCollectionDuration": 200,
        "signalsToCollect": [{"name": f"{table.name}.*", "maxSampleCount": 100}],
    }
