"""The form of each kind of document of AWS IoT FleetWise.  Pure.

A form has the fields of requests (`create-…`, `update-…`) and of answers (`get-…`, `list-…`) together, because users
keep both.  What the command line of AWS takes from arguments, such as `--name`, may be missing.  Lists of decoders and
nodes may be longer than the 500 of one request, because the command line of AWS joins the pages of an answer.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from fleet.fleetwise.fields import (
    Description,
    Fields,
    InterfaceId,
    NetworkInterface,
    Node,
    NodePath,
    OneOf,
    Positive,
    ResourceName,
    SignalDecoder,
    Tag,
    Uint32,
)

_Expression = Annotated[str, Meta(min_length=1, max_length=2_048)]
_Version = Annotated[int, Meta(ge=1, le=1)]
_TriggerMode = Literal["ALWAYS", "RISING_EDGE"]
_PartitionId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9]+\Z")]
_Dimensions = Annotated[list[NodePath], Meta(max_length=5)]
Time = float | str
Decoders = Annotated[list[SignalDecoder], Meta(min_length=1)]
Interfaces = Annotated[list[NetworkInterface], Meta(min_length=1)]
Nodes = list[Node]


class _Resource(Fields, frozen=True, kw_only=True):
    name: ResourceName | None = None
    arn: str | None = None
    description: Description | None = None
    status: str | None = None
    message: str | None = None
    creation_time: Time | None = None
    last_modification_time: Time | None = None
    next_token: str | None = None
    tags: Annotated[list[Tag], Meta(max_length=50)] | None = None


class _TimeBased(Fields, frozen=True, kw_only=True):
    period_ms: Annotated[int, Meta(ge=10_000, le=86_400_000)]


class _ConditionBased(Fields, frozen=True, kw_only=True):
    expression: _Expression
    minimum_trigger_interval_ms: Uint32 | None = None
    trigger_mode: _TriggerMode | None = None
    condition_language_version: _Version | None = None


class _Scheme(OneOf, frozen=True, kw_only=True):
    time_based_collection_scheme: _TimeBased | None = None
    condition_based_collection_scheme: _ConditionBased | None = None


class _SignalInformation(Fields, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^[\w|*|-]+(\.[\w|*|-]+)*\Z")]
    max_sample_count: Annotated[int, Meta(ge=1, le=4_294_967_295)] | None = None
    minimum_sampling_interval_ms: Uint32 | None = None
    data_partition_id: _PartitionId | None = None


class _S3(Fields, frozen=True, kw_only=True):
    bucket_arn: Annotated[str, Meta(min_length=16, max_length=100, pattern=r"^arn:(aws[a-zA-Z0-9-]*):s3:::.+\Z")]
    data_format: Literal["JSON", "PARQUET"] | None = None
    storage_compression_format: Literal["NONE", "GZIP"] | None = None
    prefix: Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[a-zA-Z0-9-_:./!*'()]+\Z")] | None = None


_Arn = Annotated[str, Meta(min_length=20, max_length=2_048, pattern=r"^arn:.*\Z")]


class _Timestream(Fields, frozen=True, kw_only=True):
    timestream_table_arn: _Arn
    execution_role_arn: _Arn


class _MqttTopic(Fields, frozen=True, kw_only=True):
    mqtt_topic_arn: _Arn
    execution_role_arn: _Arn


class _Destination(OneOf, frozen=True, kw_only=True):
    s3_config: _S3 | None = None
    timestream_config: _Timestream | None = None
    mqtt_topic_config: _MqttTopic | None = None


class _Size(Fields, frozen=True, kw_only=True):
    unit: Literal["MB", "GB", "TB"]
    value: Annotated[int, Meta(ge=1, le=1_073_741_824)]


class _TimeToLive(Fields, frozen=True, kw_only=True):
    unit: Literal["HOURS", "DAYS", "WEEKS"]
    value: Annotated[int, Meta(ge=1, le=876_600)]


class _Storage(Fields, frozen=True, kw_only=True):
    maximum_size: _Size
    storage_location: Annotated[str, Meta(min_length=1, max_length=4_096)]
    minimum_time_to_live: _TimeToLive


class _Upload(Fields, frozen=True, kw_only=True):
    expression: _Expression
    condition_language_version: _Version | None = None


class Partition(Fields, frozen=True, kw_only=True):
    """Data that a campaign stores in the vehicle; `upload_options` says when it is sent."""

    id: _PartitionId
    storage_options: _Storage
    upload_options: _Upload | None = None


class _TimeBasedFetch(Fields, frozen=True, kw_only=True):
    execution_frequency_ms: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class _ConditionBasedFetch(Fields, frozen=True, kw_only=True):
    condition_expression: Annotated[str, Meta(min_length=1, max_length=400)]
    trigger_mode: _TriggerMode


class _FetchConfig(OneOf, frozen=True, kw_only=True):
    time_based: _TimeBasedFetch | None = None
    condition_based: _ConditionBasedFetch | None = None


class _Fetch(Fields, frozen=True, kw_only=True):
    fully_qualified_name: NodePath
    signal_fetch_config: _FetchConfig
    condition_language_version: _Version | None = None
    actions: Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(min_length=1, max_length=2)]


class CampaignForm(_Resource, frozen=True, kw_only=True):
    """A campaign."""

    collection_scheme: _Scheme
    signal_catalog_arn: str | None = None
    target_arn: str | None = None
    start_time: Time | None = None
    expiry_time: Time | None = None
    post_trigger_collection_duration: Uint32 | None = None
    diagnostics_mode: Literal["OFF", "SEND_ACTIVE_DTCS"] | None = None
    spooling_mode: Literal["OFF", "TO_DISK"] | None = None
    compression: Literal["OFF", "SNAPPY"] | None = None
    priority: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    signals_to_collect: Annotated[list[_SignalInformation], Meta(max_length=1_000)] | None = None
    data_extra_dimensions: _Dimensions | None = None
    data_destination_configs: Annotated[list[_Destination], Meta(min_length=1, max_length=3)] | None = None
    data_partitions: Annotated[list[Partition], Meta(min_length=1, max_length=20)] | None = None
    signals_to_fetch: Annotated[list[_Fetch], Meta(min_length=1, max_length=2)] | None = None
    action: str | None = None


class DecoderManifestForm(_Resource, frozen=True, kw_only=True):
    """A decoder manifest, or a part of one."""

    model_manifest_arn: str | None = None
    signal_decoders: Decoders | None = None
    network_interfaces: Interfaces | None = None
    default_for_unmapped_signals: Literal["CUSTOM_DECODING"] | None = None
    signal_decoders_to_add: Decoders | None = None
    signal_decoders_to_update: Decoders | None = None
    signal_decoders_to_remove: Annotated[list[NodePath], Meta(min_length=1)] | None = None
    network_interfaces_to_add: Interfaces | None = None
    network_interfaces_to_update: Interfaces | None = None
    network_interfaces_to_remove: Annotated[list[InterfaceId], Meta(min_length=1)] | None = None


class SignalCatalogForm(_Resource, frozen=True, kw_only=True):
    """A signal catalogue, or the nodes of one."""

    nodes: Nodes | None = None
    nodes_to_add: Nodes | None = None
    nodes_to_update: Nodes | None = None
    nodes_to_remove: list[NodePath] | None = None
    node_counts: Mapping[str, Any] | None = None


class ModelManifestForm(_Resource, frozen=True, kw_only=True):
    """A model manifest: the names of the signals that a vehicle model has."""

    signal_catalog_arn: str | None = None
    nodes: list[str] | None = None


class _TimePeriod(Fields, frozen=True, kw_only=True):
    unit: Literal["MILLISECOND", "SECOND", "MINUTE", "HOUR"]
    value: Positive


class _Periodic(Fields, frozen=True, kw_only=True):
    state_template_update_rate: _TimePeriod


class _OnChange(Fields, frozen=True, kw_only=True):
    pass


class _Strategy(OneOf, frozen=True, kw_only=True):
    periodic: _Periodic | None = None
    on_change: _OnChange | None = None


class StateTemplateUse(Fields, frozen=True, kw_only=True):
    """A state template that a vehicle uses, and when its state is sent."""

    identifier: ResourceName
    state_template_update_strategy: _Strategy


class VehicleForm(Fields, frozen=True, kw_only=True):
    """A vehicle."""

    vehicle_name: ResourceName
    model_manifest_arn: str
    decoder_manifest_arn: str
    arn: str | None = None
    attributes: dict[Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^[a-zA-Z0-9_.-]+\Z")], str] | None = (
        None
    )
    association_behavior: Literal["CreateIotThing", "ValidateIotThingExists"] | None = None
    tags: Annotated[list[Tag], Meta(max_length=50)] | None = None
    state_templates: Annotated[list[StateTemplateUse], Meta(min_length=1, max_length=20)] | None = None
    creation_time: Time | None = None
    last_modification_time: Time | None = None


class VehiclesForm(Fields, frozen=True, kw_only=True):
    """Several vehicles (`batch-create-vehicle`)."""

    vehicles: Annotated[list[VehicleForm], Meta(min_length=1, max_length=10)]


class StateTemplateForm(_Resource, frozen=True, kw_only=True):
    """A state template."""

    state_template_properties: Annotated[list[NodePath], Meta(min_length=1, max_length=500)]
    signal_catalog_arn: str | None = None
    data_extra_dimensions: _Dimensions | None = None
    metadata_extra_dimensions: _Dimensions | None = None
    id: str | None = None


Form = (
    CampaignForm
    | DecoderManifestForm
    | SignalCatalogForm
    | ModelManifestForm
    | VehicleForm
    | VehiclesForm
    | StateTemplateForm
)
_F = TypeVar("_F")
_PLACE: Final = " - at `$"


class FormError(Exception):
    """Raised if a document has not the form of its kind.  `key` is the path of the field at fault, or empty."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


def read_form(content: Any, form: type[_F]) -> _F:
    """Return the content of a document, whose form is checked.  Raises: FormError."""
    try:
        return msgspec.convert(content, form)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(_PLACE)
        raise FormError(place.strip(".`"), what[0].lower() + what[1:]) from error
