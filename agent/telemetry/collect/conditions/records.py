"""Runs a condition-based campaign over recorded frames, and returns its triggers and samples as records.

This file is pure.  A record is a JSON object:

    {"k": "trigger", "n", "t_us", "until_us"[, "names"]}
    {"k": "sample", "n", "t_us", "bus", "message", "signal", "raw", "value"[, "source_address"]}

`n` is the number of the trigger that sends the sample.  `raw` is the raw integer; of an IEEE float it is the bit
pattern as a signed integer.  A value that is not finite is written as a text.  The names that MULTI_RISING_EDGE_TRIGGER
has found are samples of the signal MultiRisingEdgeTrigger without bus and message, whose value is the JSON list of
names.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from agent.formats.down.campaign import parse_campaign
from agent.formats.down.conditions.scheme import EDGE_NAMES
from agent.formats.up.columns import ColumnGroup, physical_values
from agent.telemetry.collect.conditions.admission import refuse_undefined
from agent.telemetry.collect.conditions.collections import Collection
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.conditions.window import names_as_json
from agent.telemetry.collect.signal_tables import SignalTables
from can_dbc.frames import FrameBlock
from can_dbc.plan import BusPlan
from can_dbc.values import Kind

Record = dict[str, Any]


def records_of(document: Mapping[str, Any], plans: Mapping[str, BusPlan], blocks: Iterable[FrameBlock]) -> list[Record]:
    """Return the records of a campaign document, in the order of happening.

    `plans` has the plan of each bus by name.  `blocks` has all frames in the order of the bus, cut in any way; their
    buses must all be the same.

    Raises: Permanent if the document is refused, also if its condition would be undefined for ever.
    """
    campaign = parse_campaign(document, "campaign")
    refuse_undefined(campaign, SignalTables(tuple(plans), plans).names, "campaign")
    collector: ConditionCollector | None = None
    records: list[Record] = []
    for block in blocks:
        if collector is None:
            tables = SignalTables(block.buses, plans)
            collector = ConditionCollector(campaign, tables)
            decoder = tables.decoder(collector.wants)
        if not campaign.suspended:
            collector.take_blocks(tables.blocks(decoder.decode(block).columns))
            records += records_in(collector.take_closed())
    if collector is not None:
        collector.close()
        records += records_in(collector.take_closed())
    return records


def records_in(collections: Iterable[Collection]) -> Iterator[Record]:
    """Yield each trigger of `collections`, followed by its samples."""
    for collection in collections:
        trigger = collection.trigger
        made: Record = {
            "k": "trigger",
            "n": trigger.number,
            "t_us": trigger.t_ns // 1_000,
            "until_us": trigger.until_ns // 1_000,
        }
        yield made | {"names": list(trigger.names)} if trigger.names else made
        for group in collection.groups:
            yield from _samples(group, trigger.number)
        for edges in collection.edges:
            yield {
                "k": "sample",
                "n": trigger.number,
                "t_us": edges.t_ns // 1_000,
                "bus": "",
                "message": "",
                "signal": EDGE_NAMES.removeprefix("Vehicle."),
                "raw": None,
                "value": names_as_json(edges.names),
            }


def _samples(group: ColumnGroup, number: int) -> Iterator[Record]:
    for info, raws, values in zip(group.signals, group.raw, physical_values(group), strict=True):
        message, _, signal = info.name.rpartition(".")
        numbers = raws.view(np.uint64) if info.kind is Kind.UINT else raws
        for t_us, raw, value in zip(group.t_us.tolist(), numbers.tolist(), values.tolist(), strict=True):
            made: Record = {
                "k": "sample",
                "n": number,
                "t_us": t_us,
                "bus": info.bus,
                "message": message,
                "signal": signal,
                "raw": raw,
                "value": value if math.isfinite(value) else str(value),
            }
            yield made if group.source_address is None else made | {"source_address": group.source_address}
