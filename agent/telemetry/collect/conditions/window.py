"""Makes one window of what triggers send.  This file is pure.

A window may have several collections.  Each column group names its trigger by number.  Each trigger is an event of the
kind `trigger`, with the fields `campaign`, `revision`, `number`, `until_us` (the end of its collection) and, if
MULTI_RISING_EDGE_TRIGGER has found any, `names` (a JSON list).  An event travels in the batch with its samples.

The names that rise while a collection is open are samples of the signal `Vehicle.MultiRisingEdgeTrigger`.  Their texts
are JSON lists.  Their raw values only tell the texts of one window apart.
"""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from agent.formats.down.campaign import Campaign
from agent.formats.down.conditions.scheme import EDGE_NAMES
from agent.formats.up.columns import Clock, ColumnGroup, Event, EventValue, SignalInfo, Window
from agent.telemetry.collect.conditions.collections import Collection
from agent.telemetry.collect.conditions.triggers import Edges, Trigger
from can_dbc.values import Kind

TRIGGER_EVENT: Final = "trigger"
_NOT_LISTED: Final = 2**63 - 1
"""The number of a signal that the catalogue of the campaign does not have, because each text is different."""


def window_of(campaign: Campaign, collections: Sequence[Collection], clock: Clock) -> Window:
    """Return a window with what `collections` send.  At least one is needed."""
    groups = [group for collection in collections for group in collection.groups]
    groups += [_edges(collection) for collection in collections if collection.edges]
    events = [_event(campaign, collection.trigger) for collection in collections]
    times = [event.t_us for event in events]
    times += [int(end) for group in groups for end in (group.t_us.min(), group.t_us.max())]
    return Window(campaign.name, campaign.revision, min(times), max(times) + 1, clock, tuple(groups), tuple(events))


def names_as_json(names: Sequence[str]) -> str:
    """Return the names that MULTI_RISING_EDGE_TRIGGER has found as a JSON list without spaces."""
    return json.dumps(names, separators=(",", ":"), ensure_ascii=False)


def _event(campaign: Campaign, trigger: Trigger) -> Event:
    fields: dict[str, EventValue] = {
        "campaign": campaign.name,
        "revision": campaign.revision,
        "number": trigger.number,
        "until_us": trigger.until_ns // 1_000,
    }
    if trigger.names:
        fields["names"] = names_as_json(trigger.names)
    return Event(trigger.t_ns // 1_000, TRIGGER_EVENT, fields)


def _edges(collection: Collection) -> ColumnGroup:
    texts: dict[str, int] = {}
    raw = [texts.setdefault(names_as_json(edges.names), len(texts)) for edges in collection.edges]
    info = SignalInfo(EDGE_NAMES, "", None, Kind.UINT, 32, 1.0, 0.0)
    return ColumnGroup(
        _times(collection.edges),
        (info,),
        np.array([raw], np.int64),
        ({number: text for text, number in texts.items()},),
        numbers=np.array([_NOT_LISTED], np.int64),
        trigger=collection.trigger.number,
    )


def _times(edges: Sequence[Edges]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array([each.t_ns // 1_000 for each in edges], np.int64)
