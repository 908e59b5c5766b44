"""Read campaign documents, which say which signals to collect, how often, and for how long.  Pure.

The format is the JSON of AWS IoT FleetWise (CreateCampaign requests and GetCampaign answers, API 2021-06-17), so a
fleet that leaves FleetWise changes little more than the names of signals.  Two extensions are our own, both in the
objects of `signalsToCollect`: there is a field `onChange`, and the field `name` may be a glob (`*`, `?` and `[a-z]` as
in fnmatch, case-sensitive).  config/campaigns/README.md has a table of the fields.

Invariant: no field is ignored silently.  The fields in `NO_EFFECT` are accepted, because these fields of AWS's API
cannot change what a vehicle collects.  If a campaign uses any other field that this version does not support, the
campaign is refused, and the error names the field.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.strict import read_object, refuse_unknown
from agent.formats.iso_time import ns_of_iso

DOCUMENT_BYTES: Final = 1_048_576
MAX_RULES: Final = 1_000
"""The greatest number of rules in one campaign; FleetWise allows 999 signals."""
GLOB_STEPS: Final = 2_000
"""The most steps of all globs of a release: one for each glob, and one for each `*` in it.

With 4,000 signals, a step takes up to 2.6 ms on a PC.  Without this limit, 40 KB of globs would take minutes.
"""
MIN_PERIOD_MS: Final = 1_000
"""The shortest window; FleetWise allows at least 10,000 ms."""
MAX_PERIOD_MS: Final = 86_400_000
MAX_PRIORITY: Final = 2**31 - 1
"""The greatest priority that the index of the spool can store."""

NO_EFFECT: Final[Mapping[str, str]] = {
    "arn": "names the campaign in the account of AWS",
    "clientToken": "makes a request to AWS idempotent",
    "compression": "chooses a compression for Amazon S3; batches are always compressed with zstd",
    "creationTime": "records when AWS created the campaign",
    "dataDestinationConfigs": "names a bucket or a topic of AWS; batches go to the fleet's receiver",
    "description": "is for people",
    "lastModificationTime": "records when AWS last changed the campaign",
    "postTriggerCollectionDuration": "says how long to collect after a trigger; a time-based campaign has none",
    "signalCatalogArn": "names signals in the account of AWS; here the vehicle's databases name them",
    "spoolingMode": "chooses whether batches survive a lost connection; here they always do",
    "tags": "label the campaign for people and for billing",
    "targetArn": "names vehicles in the account of AWS; here `fleet publish --audience` does",
}
"""Fields of AWS's API that are accepted because they do not change what a vehicle collects, each with its purpose."""

_NOT_SUPPORTED: Final[Mapping[str, str]] = {
    "signalsToFetch": "this version does not fetch signals by diagnostic request",
    "dataPartitions": "this version does not keep data back until a condition is met",
    "dataExtraDimensions": "samples carry no attributes of the vehicle; the fleet can join them",
}
"""Fields of AWS's API that would change what is collected or stored.  A campaign that fills one of them is refused."""

_GLOB: Final = frozenset("*?[")
_FOREVER_NS: Final = 253_402_214_400 * 10**9
"""FleetWise's default for `expiryTime`: December 31, 9999."""


class SignalRule(msgspec.Struct, frozen=True):
    """Says how to collect one signal, or every signal that the glob `name` matches.

    `interval_ns` is the shortest time between two samples that are kept; 0 sets no limit.  A window keeps at most the
    `max_samples` newest samples of a signal; None sets no limit.  With `on_change`, a sample is kept only if its raw
    value differs from the raw value of the sample before.
    """

    name: str
    interval_ns: int
    max_samples: int | None
    on_change: bool


class Campaign(msgspec.Struct, frozen=True):
    """One campaign, whose document has passed all checks.

    `revision` identifies the content of the document by 12 hex digits.  `period_ms` is how long a window stays open.
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


_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
_Time = float | str | None


class _Signal(msgspec.Struct, rename="camel", frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=150)]
    max_sample_count: Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)] | None = None
    minimum_sampling_interval_ms: _Milliseconds | None = None
    on_change: bool = False


class _TimeBased(msgspec.Struct, rename="camel", frozen=True):
    period_ms: Annotated[int, msgspec.Meta(ge=MIN_PERIOD_MS, le=MAX_PERIOD_MS)]


class _Scheme(msgspec.Struct, rename="camel", frozen=True):
    time_based_collection_scheme: _TimeBased | None = None
    condition_based_collection_scheme: dict[str, Any] | None = None


class _Document(msgspec.Struct, rename="camel", frozen=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z\d\-_:]{1,100}$")]
    collection_scheme: _Scheme
    signals_to_collect: Annotated[list[_Signal], msgspec.Meta(min_length=1, max_length=MAX_RULES)]
    priority: Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)] = 0
    start_time: _Time = None
    expiry_time: _Time = None
    status: str = "RUNNING"


def parse_campaign(document: bytes | Mapping[str, Any], source: str) -> Campaign:
    """Check a campaign document (JSON, or parsed JSON), and return its content as a Campaign.

    `source` is the file that error messages name.  Raises: Permanent naming the field and the remedy.
    """
    content = _read(document, source) if isinstance(document, bytes) else document
    _refuse_unsupported(content, source)
    _refuse_unknown_fields(content, source)
    try:
        parsed = msgspec.convert(content, _Document)
    except msgspec.ValidationError as error:
        raise Permanent(_complaint(str(error), source)) from error
    time_based = parsed.collection_scheme.time_based_collection_scheme
    # AWS requires exactly one scheme, and the condition-based scheme was refused above.
    if time_based is None:
        raise Permanent(f"{source}: collectionScheme has no timeBasedCollectionScheme: add one with periodMs")
    start_ns = _time_ns(parsed.start_time, 0, f"{source}: startTime")
    expiry_ns = _time_ns(parsed.expiry_time, _FOREVER_NS, f"{source}: expiryTime")
    if expiry_ns <= start_ns:
        raise Permanent(f"{source}: expiryTime is not after startTime: the campaign would never be active")
    return Campaign(
        parsed.name,
        _revision(content),
        _rules(parsed.signals_to_collect, source),
        time_based.period_ms,
        parsed.priority,
        start_ns,
        expiry_ns,
        # The other states of GetCampaign (CREATING, WAITING_FOR_APPROVAL, SUSPENDED) collect nothing in AWS either.
        suspended=parsed.status != "RUNNING",
    )


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


def _refuse_unsupported(content: Mapping[str, Any], source: str) -> None:
    """Refuse the fields of AWS's API that are not supported here, but would change what a vehicle collects."""
    for key, reason in _NOT_SUPPORTED.items():
        # GetCampaign answers with an empty list if a campaign does not use the field.
        if content.get(key):
            raise Permanent(f"{source}: {key} is not supported ({reason}): remove it")
    # GetCampaign always answers with diagnosticsMode, and OFF asks for nothing.
    if content.get("diagnosticsMode", "OFF") != "OFF":
        raise Permanent(f"{source}: diagnosticsMode {content['diagnosticsMode']!r} is not supported: set it to OFF")
    scheme = content.get("collectionScheme")
    if isinstance(scheme, Mapping) and scheme.get("conditionBasedCollectionScheme") is not None:
        raise Permanent(
            f"{source}: collectionScheme.conditionBasedCollectionScheme is not supported in this version: "
            "use timeBasedCollectionScheme, and set onChange on a signal if only its changes matter"
        )
    for place, signal in _signals(content):
        if signal.get("dataPartitionId") is not None:
            reason = _NOT_SUPPORTED["dataPartitions"]
            raise Permanent(f"{source}: {place}.dataPartitionId is not supported ({reason}): remove it")


def _refuse_unknown_fields(content: Mapping[str, Any], source: str) -> None:
    """Refuse a field that this version does not know, because it is most likely misspelt."""
    known = {*_Document.__struct_encode_fields__, *NO_EFFECT, *_NOT_SUPPORTED, "diagnosticsMode"}
    refuse_unknown(content, known, source)
    scheme = content.get("collectionScheme")
    if isinstance(scheme, Mapping):
        where = f"{source}: collectionScheme"
        refuse_unknown(scheme, _Scheme.__struct_encode_fields__, where)
        time_based = scheme.get("timeBasedCollectionScheme")
        if isinstance(time_based, Mapping):
            refuse_unknown(time_based, _TimeBased.__struct_encode_fields__, f"{where}.timeBasedCollectionScheme")
    for place, signal in _signals(content):
        refuse_unknown(signal, (*_Signal.__struct_encode_fields__, "dataPartitionId"), f"{source}: {place}")


def _signals(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each object in `signalsToCollect` with its path, such as `signalsToCollect[0]`.

    Elements that are not objects are skipped here, because msgspec refuses them later.
    """
    signals = content.get("signalsToCollect")
    listed = enumerate(signals) if isinstance(signals, list) else ()
    return [(f"signalsToCollect[{index}]", signal) for index, signal in listed if isinstance(signal, Mapping)]


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


def _rules(signals: list[_Signal], source: str) -> tuple[SignalRule, ...]:
    names: set[str] = set()
    for signal in signals:
        if signal.name in names:
            raise Permanent(f"{source}: signalsToCollect names {signal.name!r} twice: keep one of them")
        names.add(signal.name)
    return tuple(
        SignalRule(
            signal.name,
            (signal.minimum_sampling_interval_ms or 0) * 1_000_000,
            signal.max_sample_count,
            signal.on_change,
        )
        for signal in signals
    )


def _time_ns(time: _Time, default_ns: int, where: str) -> int:
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
