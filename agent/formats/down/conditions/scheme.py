"""Reads the fields of a condition-based campaign.  Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.conditions.condition import read_condition
from agent.formats.down.conditions.fault import ConditionFault
from agent.formats.down.conditions.tree import Node

SCHEME: Final = "collectionScheme.conditionBasedCollectionScheme"
POST_TRIGGER: Final = "postTriggerCollectionDuration"
LANGUAGE_VERSION: Final = 1
RING_SAMPLE_BYTES: Final = 16
"""The memory that a sample takes in a ring: a time and a raw value of 8 bytes each."""
RING_SAMPLES: Final = 1_000
"""The size of a signal's ring if the campaign has no `maxSampleCount`."""
EDGE_NAMES: Final = "Vehicle.MultiRisingEdgeTrigger"
"""The name in `signalsToCollect` that asks for the names of MULTI_RISING_EDGE_TRIGGER as samples."""

_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
_MODES: Final = ("ALWAYS", "RISING_EDGE")


class ConditionFields(msgspec.Struct, rename="camel", frozen=True):
    """The fields of `conditionBasedCollectionScheme`, as they are written."""

    expression: str
    trigger_mode: str = "ALWAYS"
    minimum_trigger_interval_ms: _Milliseconds = 0
    condition_language_version: int = LANGUAGE_VERSION


class Condition(msgspec.Struct, frozen=True):
    """Says when a campaign triggers, and how long it collects then.

    `tree` is the condition.  With `rising_edge`, it triggers only after it was not true.  Triggers are at least
    `interval_ns` apart.  A collection stays open for `post_trigger_ns` after its trigger.
    """

    expression: str
    tree: Node
    rising_edge: bool
    interval_ns: int
    post_trigger_ns: int


class _PostTrigger(msgspec.Struct, frozen=True):
    duration_ms: _Milliseconds = msgspec.field(name=POST_TRIGGER, default=0)


def condition_of(fields: ConditionFields, content: Mapping[str, Any], source: str) -> Condition:
    """Return the condition of a campaign document.

    `content` is the whole document, and `source` the file that error messages name.  The names of signals are not
    checked here, because they depend on the vehicle.

    Raises: Permanent naming the field and, for the expression, the place.  msgspec.ValidationError for a wrong type.
    """
    if fields.condition_language_version != LANGUAGE_VERSION:
        raise Permanent(
            f"{source}: {SCHEME}.conditionLanguageVersion: {fields.condition_language_version} is not supported: "
            f"there is only version {LANGUAGE_VERSION}"
        )
    if fields.trigger_mode not in _MODES:
        raise Permanent(f"{source}: {SCHEME}.triggerMode: {fields.trigger_mode!r} is neither ALWAYS nor RISING_EDGE")
    post_trigger = msgspec.convert({POST_TRIGGER: content.get(POST_TRIGGER, 0)}, _PostTrigger)
    try:
        tree = read_condition(fields.expression)
    except ConditionFault as fault:
        raise Permanent(f"{source}: {SCHEME}.expression, {fault}") from fault
    return Condition(
        fields.expression,
        tree,
        rising_edge=fields.trigger_mode == "RISING_EDGE",
        interval_ns=fields.minimum_trigger_interval_ms * 1_000_000,
        post_trigger_ns=post_trigger.duration_ms * 1_000_000,
    )
