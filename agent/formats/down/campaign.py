"""Campaign documents: which signals a vehicle collects, how often, and for how long.  Pure.

The JSON is that of AWS IoT FleetWise (CreateCampaign requests and GetCampaign answers, API 2021-06-17), so a
fleet that leaves that service keeps its campaigns.  Fields of the cloud side and unknown fields are
tolerated.  Invariant: a field that would change *what is collected*, and that this version does not carry
out, is refused by name; it is never ignored.

Own extensions in `signalsToCollect[]`: `onChange`, and in `name` the globs of fnmatch (`*`, `?`, `[a-z]`,
case-sensitive).
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

import msgspec

from agent.errors import Permanent

MAX_DOCUMENT_BYTES: Final = 1_048_576
MAX_RULES: Final = 1_000  # FleetWise allows 999 signals a campaign
MIN_PERIOD_MS: Final = 1_000  # FleetWise: 10,000
MAX_PERIOD_MS: Final = 86_400_000
MAX_PRIORITY: Final = 2**31 - 1  # and what the spool keeps of it
_FOREVER_NS: Final = 253_402_214_400 * 10**9  # FleetWise's default expiry: December 31, 9999
_GLOB_CHARACTERS: Final = frozenset("*?[")
_NOT_CARRIED_OUT: Final = {
    "signalsToFetch": "fetching by diagnostic request is not available in this version",
    "dataPartitions": "conditional upload is not available in this version",
    "dataExtraDimensions": "brand, model, market and model year are joined to samples in the lake",
}


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one signal, or each signal that a glob selects, is collected.

    `interval_ns` 0: every sample.  `max_samples` None: no bound, else at most so many newest of each window.
    `on_change`: only samples whose raw value differs from the one before.
    """

    name: str
    interval_ns: int
    max_samples: int | None
    on_change: bool

    @property
    def is_glob(self) -> bool:
        """Whether `name` is a pattern."""
        return not _GLOB_CHARACTERS.isdisjoint(self.name)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign, checked.  `revision` names the document's content: 12 hex digits.

    `period_ms` is how long a window stays open; `priority` as in FleetWise, 0 is the most important.  It is
    active from `start_ns` (included) to `expiry_ns` (excluded), Unix epoch, unless `suspended`.
    """

    name: str
    revision: str
    rules: tuple[SignalRule, ...]
    period_ms: int
    priority: int
    start_ns: int
    expiry_ns: int
    suspended: bool

    def rule_for(self, signal: str) -> SignalRule | None:
        """The rule of "Message.Signal": that of its exact name, else the first glob that matches."""
        globs = None
        for rule in self.rules:
            if rule.name == signal:
                return rule
            if globs is None and rule.is_glob and fnmatchcase(signal, rule.name):
                globs = rule
        return globs


# ---------------------------------------------------------------- the document, as msgspec checks it

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
    """Check a campaign document; `source` (its file) stands in messages.  Raises Permanent with the remedy."""
    content = _load(document, source) if isinstance(document, bytes) else document
    _refuse_what_is_not_carried_out(content, source)
    try:
        parsed = msgspec.convert(content, _Document)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = where.strip(".`")
        named = f"{key}: " if key else ""
        raise Permanent(
            f"{source}: {named}{what[0].lower()}{what[1:]}; config/campaigns/README.md says what each field may be"
        ) from error
    time_based = parsed.collection_scheme.time_based_collection_scheme
    if time_based is None:
        raise Permanent(f"{source}: collectionScheme has no timeBasedCollectionScheme: add one with periodMs")
    start_ns = _time_ns(parsed.start_time, 0, f"{source}: startTime")
    expiry_ns = _time_ns(parsed.expiry_time, _FOREVER_NS, f"{source}: expiryTime")
    if expiry_ns <= start_ns:
        raise Permanent(f"{source}: expiryTime is not after startTime: the campaign would never be active")
    rules = tuple(
        SignalRule(
            signal.name,
            (signal.minimum_sampling_interval_ms or 0) * 1_000_000,
            signal.max_sample_count,
            signal.on_change,
        )
        for signal in parsed.signals_to_collect
    )
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise Permanent(f"{source}: signalsToCollect names {name!r} twice: keep one of them")
    return Campaign(
        parsed.name,
        _revision(content),
        rules,
        time_based.period_ms,
        parsed.priority,
        start_ns,
        expiry_ns,
        suspended=parsed.status != "RUNNING",
    )


_OF_THE_CLOUD_SIDE: Final = (
    *("arn", "clientToken", "compression", "creationTime", "dataDestinationConfigs", "description", "diagnosticsMode"),
    *("lastModificationTime", "postTriggerCollectionDuration", "signalCatalogArn", "spoolingMode", "tags", "targetArn"),
)


def parse_campaigns(documents: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, Campaign], ...]:
    """Parse (source, JSON) pairs that are to be in force together; return each source with its campaign.

    Raises Permanent naming the source at fault, also where two campaigns share a name: batches refer to their campaign
    by name, so the two could not be told apart.
    """
    found: dict[str, tuple[str, Campaign]] = {}
    for source, document in documents:
        campaign = parse_campaign(document, source)
        if campaign.name in found:
            first = found[campaign.name][0]
            raise Permanent(f"{source}: campaign {campaign.name!r} is also in {first}; rename one")
        found[campaign.name] = (source, campaign)
    return tuple(found.values())


def misspelt_fields(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Unknown fields of an accepted document that look like known ones, which they do not set, with those."""
    scheme = content["collectionScheme"]
    return [
        *_misspelt(content, (*_Document.__struct_encode_fields__, *_NOT_CARRIED_OUT, *_OF_THE_CLOUD_SIDE)),
        *_misspelt(scheme, _Scheme.__struct_encode_fields__),
        *_misspelt(scheme["timeBasedCollectionScheme"], _TimeBased.__struct_encode_fields__),
        *(
            found
            for signal in content["signalsToCollect"]
            for found in _misspelt(signal, (*_Signal.__struct_encode_fields__, "dataPartitionId"))
        ),
    ]


def _misspelt(table: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    lower = {name.lower(): name for name in known}
    for name in table.keys() - set(known):
        for close in difflib.get_close_matches(name.lower().replace("_", ""), lower, n=1, cutoff=0.75):
            yield name, lower[close]


def _load(document: bytes, source: str) -> Mapping[str, Any]:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise Permanent(f"{source}: {len(document)} bytes exceed {MAX_DOCUMENT_BYTES}: split the campaign")
    try:
        content = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Permanent(f"{source}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Permanent(f"{source}: a campaign is a JSON object with name, collectionScheme and signalsToCollect")
    return content


def _refuse_what_is_not_carried_out(content: Mapping[str, Any], source: str) -> None:
    for key, reason in _NOT_CARRIED_OUT.items():
        if content.get(key):
            raise Permanent(f"{source}: {key} is not supported ({reason}): remove it")
    if content.get("diagnosticsMode", "OFF") != "OFF":
        raise Permanent(f"{source}: diagnosticsMode {content['diagnosticsMode']!r} is not supported: set it to OFF")
    scheme = content.get("collectionScheme")
    if isinstance(scheme, Mapping) and scheme.get("conditionBasedCollectionScheme") is not None:
        raise Permanent(
            f"{source}: collectionScheme.conditionBasedCollectionScheme is not supported in this version: "
            "use timeBasedCollectionScheme, with onChange on the signals where that suffices"
        )


def _time_ns(time: _Time, default_ns: int, where: str) -> int:
    if time is None:
        return default_ns
    if isinstance(time, float):
        if not 0 <= time <= _FOREVER_NS // 10**9 + 86_400:
            raise Permanent(f"{where}: {time} is no Unix time in seconds")
        return round(time * 1_000_000) * 1_000
    try:
        moment = datetime.fromisoformat(time)
    except ValueError as error:
        raise Permanent(f"{where}: {time!r} is no ISO 8601 time, such as 2026-07-01T00:00:00Z") from error
    if moment.tzinfo is None:
        raise Permanent(f"{where}: {time!r} has no time zone: append Z for UTC")
    return round(moment.timestamp() * 1_000_000) * 1_000


def _revision(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
