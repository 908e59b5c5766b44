"""The fields of AWS's API that documents share: network interfaces, decoders of signals, nodes of catalogues.  Pure.

Names, types and limits are those of API 2021-06-17.  A field of another name is refused, because it is most likely
misspelt.  A null stands for a field that is left out.  tests/fleet/fleetwise/test_forms.py compares these forms with
the service model of botocore.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Natural = Annotated[int, Meta(ge=0, le=2_147_483_647)]
Positive = Annotated[int, Meta(ge=1, le=2_147_483_647)]
Uint32 = Annotated[int, Meta(ge=0, le=4_294_967_295)]
ResourceName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[a-zA-Z\d\-_:]+\Z")]
NodePath = Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^[a-zA-Z0-9_.]+\Z")]
Description = Annotated[str, Meta(min_length=1, max_length=2_048, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
InterfaceId = Annotated[str, Meta(min_length=1, max_length=50, pattern=r"^[-a-zA-Z0-9_.]+\Z")]
Text150 = Annotated[str, Meta(min_length=1, max_length=150)]
ValueType = Literal["INTEGER", "FLOATING_POINT"]
_InterfaceName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[a-zA-Z0-9_.]+\Z")]
_Protocol = Annotated[str, Meta(min_length=1, max_length=50, pattern=r"^[a-zA-Z0-9_.]+\Z")]


class Fields(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all objects of the API."""


class OneOf(Fields, frozen=True, kw_only=True):
    """An object of which exactly one field must be given; the API calls it a union."""

    def __post_init__(self) -> None:
        names = dict(zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True))
        given = [named for field, named in names.items() if getattr(self, field) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"Exactly one of {', '.join(names.values())} must be given, and {found} is")


class CanInterface(Fields, frozen=True, kw_only=True):
    """The CAN bus of a network interface; `name` is what the vehicle calls it, such as can0."""

    name: _InterfaceName
    protocol_name: _Protocol | None = None
    protocol_version: _Protocol | None = None


class ObdInterface(Fields, frozen=True, kw_only=True):
    """How diagnostic requests (OBD II) are sent."""

    name: _InterfaceName
    request_message_id: Natural
    obd_standard: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    pid_request_interval_seconds: Natural | None = None
    dtc_request_interval_seconds: Natural | None = None
    use_extended_ids: bool | None = None
    has_transmission_ecu: bool | None = None


class VehicleMiddleware(Fields, frozen=True, kw_only=True):
    """A middleware that carries messages."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    protocol_name: Literal["ROS_2"]


class CustomDecodingInterface(Fields, frozen=True, kw_only=True):
    """An interface whose signals the maker's own code provides."""

    name: ResourceName


class NetworkInterface(Fields, frozen=True, kw_only=True):
    """One network interface."""

    interface_id: InterfaceId
    type: Literal["CAN_INTERFACE", "OBD_INTERFACE", "VEHICLE_MIDDLEWARE", "CUSTOM_DECODING_INTERFACE"]
    can_interface: CanInterface | None = None
    obd_interface: ObdInterface | None = None
    vehicle_middleware: VehicleMiddleware | None = None
    custom_decoding_interface: CustomDecodingInterface | None = None


class CanSignal(Fields, frozen=True, kw_only=True):
    """How a signal lies in a CAN frame.  `start_bit` is the place of its least significant bit, in either order."""

    message_id: Natural
    is_big_endian: bool
    is_signed: bool
    start_bit: Natural
    offset: float
    factor: float
    length: Natural
    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[a-zA-Z0-9_.]+\Z")] | None = None
    signal_value_type: ValueType | None = None


class ObdSignal(Fields, frozen=True, kw_only=True):
    """How a signal lies in the answer to a diagnostic request."""

    pid_response_length: Positive
    service_mode: Natural
    pid: Natural
    scaling: float
    offset: float
    start_byte: Natural
    byte_length: Annotated[int, Meta(ge=1, le=8)]
    bit_right_shift: Natural | None = None
    bit_mask_length: Annotated[int, Meta(ge=1, le=8)] | None = None
    is_signed: bool | None = None
    signal_value_type: ValueType | None = None


class CustomDecodingSignal(Fields, frozen=True, kw_only=True):
    """A signal that the maker's own code provides."""

    id: Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^(?!.*\.\.)[a-zA-Z0-9_\-#:.]+\Z")]


class _Primitive(Fields, frozen=True, kw_only=True):
    primitive_type: Literal[
        "BOOL", "BYTE", "CHAR", "FLOAT32", "FLOAT64", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64",
        "UINT64", "STRING", "WSTRING",
    ]  # fmt: skip
    offset: float | None = None
    scaling: float | None = None
    upper_bound: Annotated[int, Meta(ge=0, le=2_048)] | None = None


class _PrimitiveDefinition(OneOf, frozen=True, kw_only=True):
    ros2_primitive_message_definition: _Primitive | None = None


class _ListDefinition(Fields, frozen=True, kw_only=True):
    name: Text150
    member_type: "_StructuredMessage"
    list_type: Literal["FIXED_CAPACITY", "DYNAMIC_UNBOUNDED_CAPACITY", "DYNAMIC_BOUNDED_CAPACITY"]
    capacity: Natural | None = None


class _Pair(Fields, frozen=True, kw_only=True):
    field_name: Text150
    data_type: "_StructuredMessage"


class _StructuredMessage(OneOf, frozen=True, kw_only=True):
    primitive_message_definition: _PrimitiveDefinition | None = None
    structured_message_list_definition: _ListDefinition | None = None
    structured_message_definition: Annotated[list[_Pair], Meta(min_length=1, max_length=500)] | None = None


class MessageSignal(Fields, frozen=True, kw_only=True):
    """A signal in a message of a middleware."""

    topic_name: Annotated[str, Meta(min_length=1, max_length=150, pattern=r"^[a-zA-Z0-9_\-#:./]+\Z")]
    structured_message: _StructuredMessage


class SignalDecoder(Fields, frozen=True, kw_only=True):
    """Where the signal with this fully qualified name comes from."""

    fully_qualified_name: NodePath
    type: Literal["CAN_SIGNAL", "OBD_SIGNAL", "MESSAGE_SIGNAL", "CUSTOM_DECODING_SIGNAL"]
    interface_id: InterfaceId
    can_signal: CanSignal | None = None
    obd_signal: ObdSignal | None = None
    message_signal: MessageSignal | None = None
    custom_decoding_signal: CustomDecodingSignal | None = None


DataType = Literal[
    "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOLEAN", "FLOAT", "DOUBLE",
    "STRING", "UNIX_TIMESTAMP", "INT8_ARRAY", "UINT8_ARRAY", "INT16_ARRAY", "UINT16_ARRAY", "INT32_ARRAY",
    "UINT32_ARRAY", "INT64_ARRAY", "UINT64_ARRAY", "BOOLEAN_ARRAY", "FLOAT_ARRAY", "DOUBLE_ARRAY", "STRING_ARRAY",
    "UNIX_TIMESTAMP_ARRAY", "UNKNOWN", "STRUCT", "STRUCT_ARRAY",
]  # fmt: skip


class _Named(Fields, frozen=True, kw_only=True):
    fully_qualified_name: NodePath
    description: Description | None = None
    deprecation_message: Description | None = None
    comment: Description | None = None


class Leaf(_Named, frozen=True, kw_only=True):
    """A sensor, actuator or attribute."""

    data_type: DataType
    unit: str | None = None
    allowed_values: list[str] | None = None
    min: float | None = None
    max: float | None = None


class _Sensor(Leaf, frozen=True, kw_only=True):
    struct_fully_qualified_name: NodePath | None = None


class _Actuator(_Sensor, frozen=True, kw_only=True):
    assigned_value: str | None = None


class _Attribute(Leaf, frozen=True, kw_only=True):
    assigned_value: str | None = None
    default_value: str | None = None


class _Property(_Named, frozen=True, kw_only=True):
    data_type: DataType
    data_encoding: Literal["BINARY", "TYPED"] | None = None
    struct_fully_qualified_name: NodePath | None = None


class Node(OneOf, frozen=True, kw_only=True):
    """A node of a signal catalogue."""

    branch: _Named | None = None
    sensor: _Sensor | None = None
    actuator: _Actuator | None = None
    attribute: _Attribute | None = None
    struct: _Named | None = None
    property: _Property | None = None

    def leaf(self) -> Leaf | None:
        """Return the sensor, actuator or attribute, or None for another node."""
        return self.sensor or self.actuator or self.attribute


class Tag(Fields, frozen=True, kw_only=True):
    """A label in the account of AWS."""

    key: Annotated[str, Meta(min_length=1, max_length=128)] = msgspec.field(name="Key")
    value: Annotated[str, Meta(max_length=256)] = msgspec.field(name="Value")
