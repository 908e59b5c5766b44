"""Decides which condition-based campaigns a vehicle takes.  This file is pure.

A campaign is refused if its condition would be undefined for ever, because no database has a signal that it needs.  It
is also refused if its rings do not fit into the memory for the rings of all campaigns.  The most important campaigns
come first, and among equals the one whose name comes first.

Memory is claimed for the worst case, RING_SAMPLE_BYTES for each sample of each ring, so a ring is never smaller than
its campaign asks.  On a bus that is matched by PGN, each sender has rings of its own.  There is then room for
RING_SENDERS senders of each message, shared by all messages of the campaign.  Samples of further senders are losses.
"""

from collections.abc import Iterable, Sequence

import msgspec

from agent.errors import Permanent
from agent.formats.down.campaign import Campaign
from agent.formats.down.conditions.scheme import SCHEME
from agent.formats.down.conditions.tree import undefined_forever, variables
from agent.telemetry.collect.conditions.collector import ConditionCollector
from agent.telemetry.collect.names import SignalNames


class CampaignRefused(msgspec.Struct, frozen=True):
    """Says why a vehicle does not take a campaign."""

    campaign: str
    revision: str
    reason: str


def refuse_undefined(campaign: Campaign, names: SignalNames, source: str) -> None:
    """Check that the condition can be defined in this vehicle.  Raises: Permanent naming the place and the signal."""
    assert campaign.condition is not None
    reason = _undefined(campaign, names)
    if reason is not None:
        raise Permanent(f"{source}: {reason}")


def admit(
    collectors: Iterable[ConditionCollector], names: SignalNames, rings_max_bytes: int
) -> tuple[list[ConditionCollector], list[CampaignRefused]]:
    """Return the collectors that the vehicle takes, and why it refuses the others."""
    admitted: list[ConditionCollector] = []
    refused = []
    left_bytes = rings_max_bytes
    for collector in sorted(collectors, key=lambda each: (each.campaign.priority, each.campaign.name)):
        campaign = collector.campaign
        reason = _undefined(campaign, names)
        if reason is None and collector.ring_bytes > left_bytes:
            reason = _too_large(collector.ring_bytes, left_bytes, admitted)
        if reason is None:
            admitted.append(collector)
            left_bytes -= collector.ring_bytes
        else:
            refused.append(CampaignRefused(campaign.name, campaign.revision, reason))
    return admitted, refused


def _undefined(campaign: Campaign, names: SignalNames) -> str | None:
    assert campaign.condition is not None
    tree = campaign.condition.tree
    unknown = frozenset(name for name in variables(tree) if not names.find(name))
    variable = undefined_forever(tree, unknown)
    if variable is None:
        return None
    near = names.suggest(variable.name)
    remedy = "check its spelling" if near is None else f"did you mean {near!r}?"
    return (
        f"{SCHEME}.expression, character {variable.place}: no database of this vehicle has the signal "
        f"{variable.name!r}, so the condition could never be true; {remedy}"
    )


def _too_large(needed_bytes: int, left_bytes: int, others: Sequence[ConditionCollector]) -> str:
    beside = ", ".join(each.campaign.name for each in others)
    left = f"{left_bytes:,} are left beside {beside}" if beside else f"there are {left_bytes:,}"
    return (
        f"its rings take up to {needed_bytes:,} bytes of memory, and {left}; set a smaller maxSampleCount, collect "
        "fewer signals, or raise telemetry.rings_mb"
    )
