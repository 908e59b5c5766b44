"""Read campaign documents, which say which signals to collect, how often, and for how long.  Pure.

The format is the JSON of AWS IoT FleetWise (CreateCampaign requests and GetCampaign answers, API 2021-06-17), so a
fleet that leaves FleetWise changes little more than the names of signals.  Two extensions are our own, both in the
objects of `signalsToCollect`: there is a field `onChange`, and the field `name` may be a glob (`*`, `?` and `[a-z]` as
in fnmatch, case-sensitive).  config/campaigns/README.md has a table of the fields.

A time-based campaign collects all the time, and sends a window at the end of each period.  A condition-based campaign
sends what its rings hold when its condition triggers (`agent.formats.down.conditions`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.campaign_fields import (
    DocumentFields,
    SignalFields,
    Time,
    refuse_unknown_fields,
    refuse_unsupported,
)
from agent.formats.down.conditions.scheme import EDGE_NAMES, RING_SAMPLES, Condition, condition_of
from agent.formats.down.conditions.tree import variables
from agent.formats.down.strict import read_object
from agent.formats.iso_time import ns_of_iso

DOCUMENT_BYTES: Final = 1_048_576
GLOB_STEPS: Final = 2_000
"""The most steps of all globs of a release: one for each glob, and one for each `*` in it.

With 4,000 signals, a step takes up to 2.6 ms on a PC.  Without this limit, 40 KB of globs would take minutes.
"""
_GLOB: Final = frozenset("*?[")
_FOREVER_NS: Final = 253_402_214_400 * 10**9
"""FleetWise's default for `expiryTime`: December 31, 9999."""


class SignalRule(msgspec.Struct, frozen=True):
    """Says how to collect one signal, or every signal that the glob `name` matches.

    `interval_ns` is the shortest time between two samples that are kept; 0 sets no limit.  A window or a ring keeps at
    most the `max_samples` newest samples of a signal; None sets no limit, and a ring always has one.  With `on_change`,
    a sample is kept only if its raw value differs from the raw value of the sample before.
    """

    name: str
    interval_ns: int
    max_samples: int | None
    on_change: bool


class Campaign(msgspec.Struct, frozen=True):
    """One campaign, whose document has passed all checks.

    `revision` identifies the content of the document by 12 hex digits.  `period_ms` is how long a window stays open.
    If the campaign has a `condition`, it has no periods, and `period_ms` is 0.
    `priority` counts as in FleetWise, where 0 is the most important.  The campaign is active from `start_ns` (included)
    to `expiry_ns` (excluded), both Unix time, unless it is `suspended`.
    """

    name: str
    revision: str
    rules: tuple[SignalRule, ...]
    period_ms: int
    priority: int
    start_ns: int
    expiry_ns: int
    suspended: bool
    condition: Condition | None = None


def parse_campaign(document: bytes | Mapping[str, Any], source: str) -> Campaign:
    """Check a campaign document (JSON, or parsed JSON), and return its content as a Campaign.

    `source` is the file that error messages name.  Raises: Permanent naming the field and the remedy.
    """
    content = _read(document, source) if isinstance(document, bytes) else document
    refuse_unsupported(content, source)
    refuse_unknown_fields(content, source)
    try:
        parsed = msgspec.convert(content, DocumentFields)
        condition = _condition(parsed, content, source)
    except msgspec.ValidationError as error:
        raise Permanent(_complaint(str(error), source)) from error
    start_ns = _time_ns(parsed.start_time, 0, f"{source}: startTime")
    expiry_ns = _time_ns(parsed.expiry_time, _FOREVER_NS, f"{source}: expiryTime")
    if expiry_ns <= start_ns:
        raise Permanent(f"{source}: expiryTime is not after startTime: the campaign would never be active")
    time_based = parsed.collection_scheme.time_based_collection_scheme
    return Campaign(
        parsed.name,
        _revision(content),
        _rules(parsed.signals_to_collect, source, None if condition is None else RING_SAMPLES),
        0 if time_based is None else time_based.period_ms,
        parsed.priority,
        start_ns,
        expiry_ns,
        # The other states of GetCampaign (CREATING, WAITING_FOR_APPROVAL, SUSPENDED) collect nothing in AWS either.
        suspended=parsed.status != "RUNNING",
        condition=condition,
    )


def names_in(campaign: Campaign) -> list[str]:
    """Return each name or glob that the campaign has for signals, those in its condition last."""
    found = [rule.name for rule in campaign.rules if rule.name != EDGE_NAMES]
    if campaign.condition is not None:
        found += variables(campaign.condition.tree)
    return list(dict.fromkeys(found))


def _condition(parsed: DocumentFields, content: Mapping[str, Any], source: str) -> Condition | None:
    """Return the condition; None for a time-based campaign.  Raises: Permanent unless there is exactly one scheme."""
    scheme = parsed.collection_scheme
    if scheme.condition_based_collection_scheme is not None:
        if scheme.time_based_collection_scheme is not None:
            raise Permanent(
                f"{source}: collectionScheme has both timeBasedCollectionScheme and conditionBasedCollectionScheme: "
                "make two campaigns of it"
            )
        return condition_of(scheme.condition_based_collection_scheme, content, source)
    if scheme.time_based_collection_scheme is None:
        raise Permanent(
            f"{source}: collectionScheme has neither a timeBasedCollectionScheme (with periodMs) nor a "
            "conditionBasedCollectionScheme (with expression): add one of them"
        )
    if not parsed.signals_to_collect:
        raise Permanent(f"{source}: signalsToCollect is empty: a time-based campaign needs at least one signal")
    return None


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, Campaign], ...]:
    """Parse (source, JSON) pairs of campaigns that apply together, and return each source with its campaign.

    Raises: Permanent naming the source at fault.
    """
    campaigns = tuple((source, parse_campaign(document, source)) for source, document in documents)
    refuse_same_name(campaigns)
    return campaigns


def refuse_same_name(campaigns: Iterable[tuple[str, Campaign]]) -> None:
    """Check that no two of the (source, campaign) pairs share a name.

    Batches refer to their campaign by name, so two campaigns with one name could not be told apart.

    Raises: Permanent naming both sources.
    """
    sources: dict[str, str] = {}
    for source, campaign in campaigns:
        if campaign.name in sources:
            raise Permanent(
                f"{source}: campaign {campaign.name!r} is also in {sources[campaign.name]}; rename one of them."
            )
        sources[campaign.name] = source


def refuse_costly_globs(campaigns: Iterable[tuple[str, Campaign]]) -> None:
    """Check that a vehicle resolves the globs of all (source, campaign) pairs in seconds.  Raises: Permanent."""
    steps = 0
    for source, campaign in campaigns:
        steps += sum(1 + rule.name.count("*") for rule in campaign.rules if not _GLOB.isdisjoint(rule.name))
        if steps > GLOB_STEPS:
            raise Permanent(
                f"{source}: the globs of all campaigns up to this one take {steps:,} steps, and at most {GLOB_STEPS:,} "
                "are allowed (one for each glob, and one for each '*' in it); name signals exactly, or use fewer '*'."
            )


def _read(document: bytes, source: str) -> Mapping[str, Any]:
    if len(document) > DOCUMENT_BYTES:
        raise Permanent(
            f"{source}: the campaign has {len(document):,} bytes; at most {DOCUMENT_BYTES:,} are allowed: split it"
        )
    return read_object(document, source, "a campaign (a JSON object with name, collectionScheme and signalsToCollect)")


def _complaint(error: str, source: str) -> str:
    """Return msgspec's error message with the file and the key in front, and the place of the documentation at the end.

    For example, the first line becomes the second (`source` is FILE):

        Expected `int`, got `str` - at `$.a.b`
        FILE: a.b: expected `int`, got `str`; config/...
    """
    what, _, where = error.partition(" - at `$")
    key = where.strip(".`")
    if key == "name" and "regex" in what:
        what = "the name must be 1 to 100 letters without accents, digits, '-', '_' and ':', without a space"
    named = f"{key}: " if key else ""
    return f"{source}: {named}{what[0].lower()}{what[1:]}; config/campaigns/README.md describes each field"


def _rules(signals: list[SignalFields], source: str, ring_samples: int | None) -> tuple[SignalRule, ...]:
    names: set[str] = set()
    for signal in signals:
        if signal.name in names:
            raise Permanent(f"{source}: signalsToCollect names {signal.name!r} twice: keep one of them")
        names.add(signal.name)
    return tuple(
        SignalRule(
            signal.name,
            (signal.minimum_sampling_interval_ms or 0) * 1_000_000,
            ring_samples if signal.max_sample_count is None else signal.max_sample_count,
            signal.on_change,
        )
        for signal in signals
    )


def _time_ns(time: Time, default_ns: int, where: str) -> int:
    if time is None:
        return default_ns
    if isinstance(time, float):
        if not 0 <= time <= _FOREVER_NS // 10**9 + 86_400:
            raise Permanent(f"{where}: {time} is not a Unix time in seconds between 1970 and 9999")
        # A float of today's Unix time has a resolution of 0.2 us, so finer digits would be noise.
        return round(time * 1_000_000) * 1_000
    return ns_of_iso(time, where)


def _revision(content: Mapping[str, Any]) -> str:
    # The order of keys and white space do not count, so reformatting a file does not begin a new revision.
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
