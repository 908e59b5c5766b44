"""The fields of a campaign document, and what happens to fields that are not supported.  Pure.

Invariant: no field is ignored silently.  The fields in `NO_EFFECT` are accepted, because these fields of AWS's API
cannot change what a vehicle collects.  If a campaign uses any other field that this version does not support, the
campaign is refused, and the error names the field.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.conditions.scheme import POST_TRIGGER, ConditionFields
from agent.formats.down.strict import refuse_unknown

NO_EFFECT: Final[Mapping[str, str]] = {
    "arn": "names the campaign in the account of AWS",
    "clientToken": "makes a request to AWS idempotent",
    "compression": "chooses a compression for Amazon S3; batches are always compressed with zstd",
    "creationTime": "records when AWS created the campaign",
    "dataDestinationConfigs": "names a bucket or a topic of AWS; batches go to the fleet's receiver",
    "description": "is for people",
    "lastModificationTime": "records when AWS last changed the campaign",
    POST_TRIGGER: "says how long to collect after a trigger; a time-based campaign has none",
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

_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
Time = float | str | None
MAX_RULES: Final = 1_000
"""The greatest number of rules in one campaign; FleetWise allows 999 signals."""
MIN_PERIOD_MS: Final = 1_000
"""The shortest window; FleetWise allows at least 10,000 ms."""
MAX_PERIOD_MS: Final = 86_400_000
MAX_PRIORITY: Final = 2**31 - 1
"""The greatest priority that the index of the spool can store."""


class SignalFields(msgspec.Struct, rename="camel", frozen=True):
    """One element of `signalsToCollect`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=150)]
    max_sample_count: Annotated[int, msgspec.Meta(ge=1, le=4_294_967_295)] | None = None
    minimum_sampling_interval_ms: _Milliseconds | None = None
    on_change: bool = False


class TimeBasedFields(msgspec.Struct, rename="camel", frozen=True):
    """The fields of `timeBasedCollectionScheme`."""

    period_ms: Annotated[int, msgspec.Meta(ge=MIN_PERIOD_MS, le=MAX_PERIOD_MS)]


class SchemeFields(msgspec.Struct, rename="camel", frozen=True):
    """The field `collectionScheme`."""

    time_based_collection_scheme: TimeBasedFields | None = None
    condition_based_collection_scheme: ConditionFields | None = None


class DocumentFields(msgspec.Struct, rename="camel", frozen=True):
    """The fields of a campaign that have an effect."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z\d\-_:]{1,100}$")]
    collection_scheme: SchemeFields
    signals_to_collect: Annotated[list[SignalFields], msgspec.Meta(max_length=MAX_RULES)] = []
    priority: Annotated[int, msgspec.Meta(ge=0, le=MAX_PRIORITY)] = 0
    start_time: Time = None
    expiry_time: Time = None
    status: str = "RUNNING"


def refuse_unsupported(content: Mapping[str, Any], source: str) -> None:
    """Refuse the fields of AWS's API that are not supported here, but would change what a vehicle collects."""
    for key, reason in _NOT_SUPPORTED.items():
        # GetCampaign answers with an empty list if a campaign does not use the field.
        if content.get(key):
            raise Permanent(f"{source}: {key} is not supported ({reason}): remove it")
    # GetCampaign always answers with diagnosticsMode, and OFF asks for nothing.
    if content.get("diagnosticsMode", "OFF") != "OFF":
        raise Permanent(f"{source}: diagnosticsMode {content['diagnosticsMode']!r} is not supported: set it to OFF")
    for place, signal in _signals(content):
        if signal.get("dataPartitionId") is not None:
            reason = _NOT_SUPPORTED["dataPartitions"]
            raise Permanent(f"{source}: {place}.dataPartitionId is not supported ({reason}): remove it")


def refuse_unknown_fields(content: Mapping[str, Any], source: str) -> None:
    """Refuse a field that this version does not know, because it is most likely misspelt."""
    known = {*DocumentFields.__struct_encode_fields__, *NO_EFFECT, *_NOT_SUPPORTED, "diagnosticsMode"}
    refuse_unknown(content, known, source)
    scheme = content.get("collectionScheme")
    if isinstance(scheme, Mapping):
        where = f"{source}: collectionScheme"
        refuse_unknown(scheme, SchemeFields.__struct_encode_fields__, where)
        schemes = {"timeBasedCollectionScheme": TimeBasedFields, "conditionBasedCollectionScheme": ConditionFields}
        for name, fields in schemes.items():
            if isinstance(scheme.get(name), Mapping):
                refuse_unknown(scheme[name], fields.__struct_encode_fields__, f"{where}.{name}")
    for place, signal in _signals(content):
        refuse_unknown(signal, (*SignalFields.__struct_encode_fields__, "dataPartitionId"), f"{source}: {place}")


def _signals(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each object in `signalsToCollect` with its path, such as `signalsToCollect[0]`.

    Elements that are not objects are skipped here, because msgspec refuses them later.
    """
    signals = content.get("signalsToCollect")
    listed = enumerate(signals) if isinstance(signals, list) else ()
    return [(f"signalsToCollect[{index}]", signal) for index, signal in listed if isinstance(signal, Mapping)]
