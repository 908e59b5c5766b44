from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Lane(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[Lane]
    LANE_EVENTS: _ClassVar[Lane]
    LANE_LIVE: _ClassVar[Lane]
    LANE_BACKLOG: _ClassVar[Lane]

class Suite(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUITE_UNSPECIFIED: _ClassVar[Suite]
    SUITE_MLKEM768_X25519: _ClassVar[Suite]
    SUITE_X25519: _ClassVar[Suite]

class ClockQuality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOCK_QUALITY_UNSPECIFIED: _ClassVar[ClockQuality]
    CLOCK_QUALITY_UNSYNCHRONISED: _ClassVar[ClockQuality]
    CLOCK_QUALITY_RTC: _ClassVar[ClockQuality]
    CLOCK_QUALITY_NETWORK: _ClassVar[ClockQuality]
    CLOCK_QUALITY_GNSS: _ClassVar[ClockQuality]
    CLOCK_QUALITY_RECORDED: _ClassVar[ClockQuality]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_UINT: _ClassVar[Kind]
    KIND_INT: _ClassVar[Kind]
    KIND_FLOAT16: _ClassVar[Kind]
    KIND_FLOAT32: _ClassVar[Kind]
    KIND_FLOAT64: _ClassVar[Kind]
LANE_UNSPECIFIED: Lane
LANE_EVENTS: Lane
LANE_LIVE: Lane
LANE_BACKLOG: Lane
SUITE_UNSPECIFIED: Suite
SUITE_MLKEM768_X25519: Suite
SUITE_X25519: Suite
CLOCK_QUALITY_UNSPECIFIED: ClockQuality
CLOCK_QUALITY_UNSYNCHRONISED: ClockQuality
CLOCK_QUALITY_RTC: ClockQuality
CLOCK_QUALITY_NETWORK: ClockQuality
CLOCK_QUALITY_GNSS: ClockQuality
CLOCK_QUALITY_RECORDED: ClockQuality
KIND_UNSPECIFIED: Kind
KIND_UINT: Kind
KIND_INT: Kind
KIND_FLOAT16: Kind
KIND_FLOAT32: Kind
KIND_FLOAT64: Kind

class Envelope(_message.Message):
    __slots__ = ("header", "ciphertext")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    ciphertext: bytes
    def __init__(self, header: _Optional[bytes] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("format", "vehicle", "epoch", "seq", "lane", "suite", "key_id", "sealed_at_us")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_US_FIELD_NUMBER: _ClassVar[int]
    format: int
    vehicle: str
    epoch: str
    seq: int
    lane: Lane
    suite: Suite
    key_id: str
    sealed_at_us: int
    def __init__(self, format: _Optional[int] = ..., vehicle: _Optional[str] = ..., epoch: _Optional[str] = ..., seq: _Optional[int] = ..., lane: _Optional[_Union[Lane, str]] = ..., suite: _Optional[_Union[Suite, str]] = ..., key_id: _Optional[str] = ..., sealed_at_us: _Optional[int] = ...) -> None: ...

class SignedBody(_message.Message):
    __slots__ = ("signature", "body")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    body: bytes
    def __init__(self, signature: _Optional[bytes] = ..., body: _Optional[bytes] = ...) -> None: ...

class TelemetryBatch(_message.Message):
    __slots__ = ("format", "campaign", "revision", "start_us", "end_us", "clock", "signals", "events", "columns", "catalogue", "carried", "window")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    START_US_FIELD_NUMBER: _ClassVar[int]
    END_US_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    CARRIED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    format: int
    campaign: str
    revision: str
    start_us: int
    end_us: int
    clock: Clock
    signals: SignalTable
    events: _containers.RepeatedCompositeFieldContainer[Event]
    columns: Columns
    catalogue: bytes
    carried: bytes
    window: bytes
    def __init__(self, format: _Optional[int] = ..., campaign: _Optional[str] = ..., revision: _Optional[str] = ..., start_us: _Optional[int] = ..., end_us: _Optional[int] = ..., clock: _Optional[_Union[Clock, _Mapping]] = ..., signals: _Optional[_Union[SignalTable, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., catalogue: _Optional[bytes] = ..., carried: _Optional[bytes] = ..., window: _Optional[bytes] = ...) -> None: ...

class Catalogue(_message.Message):
    __slots__ = ("campaign", "revision", "signals")
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    campaign: str
    revision: str
    signals: SignalTable
    def __init__(self, campaign: _Optional[str] = ..., revision: _Optional[str] = ..., signals: _Optional[_Union[SignalTable, _Mapping]] = ...) -> None: ...

class Clock(_message.Message):
    __slots__ = ("quality", "boot_id", "wall_us", "boottime_us")
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    WALL_US_FIELD_NUMBER: _ClassVar[int]
    BOOTTIME_US_FIELD_NUMBER: _ClassVar[int]
    quality: ClockQuality
    boot_id: str
    wall_us: int
    boottime_us: int
    def __init__(self, quality: _Optional[_Union[ClockQuality, str]] = ..., boot_id: _Optional[str] = ..., wall_us: _Optional[int] = ..., boottime_us: _Optional[int] = ...) -> None: ...

class SignalTable(_message.Message):
    __slots__ = ("names", "strings", "buses", "types", "units", "kinds", "bits", "scales", "offsets", "texts", "text_counts", "text_raws", "text_values")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    BUSES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_RAWS_FIELD_NUMBER: _ClassVar[int]
    TEXT_VALUES_FIELD_NUMBER: _ClassVar[int]
    names: str
    strings: _containers.RepeatedScalarFieldContainer[str]
    buses: _containers.RepeatedScalarFieldContainer[int]
    types: _containers.RepeatedScalarFieldContainer[int]
    units: _containers.RepeatedScalarFieldContainer[int]
    kinds: bytes
    bits: bytes
    scales: bytes
    offsets: bytes
    texts: _containers.RepeatedScalarFieldContainer[int]
    text_counts: _containers.RepeatedScalarFieldContainer[int]
    text_raws: _containers.RepeatedScalarFieldContainer[int]
    text_values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, names: _Optional[str] = ..., strings: _Optional[_Iterable[str]] = ..., buses: _Optional[_Iterable[int]] = ..., types: _Optional[_Iterable[int]] = ..., units: _Optional[_Iterable[int]] = ..., kinds: _Optional[bytes] = ..., bits: _Optional[bytes] = ..., scales: _Optional[bytes] = ..., offsets: _Optional[bytes] = ..., texts: _Optional[_Iterable[int]] = ..., text_counts: _Optional[_Iterable[int]] = ..., text_raws: _Optional[_Iterable[int]] = ..., text_values: _Optional[_Iterable[int]] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("sizes", "times", "signals", "counts", "origin", "unit", "time", "value", "unwrapped", "senders", "triggers")
    SIZES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNWRAPPED_FIELD_NUMBER: _ClassVar[int]
    SENDERS_FIELD_NUMBER: _ClassVar[int]
    TRIGGERS_FIELD_NUMBER: _ClassVar[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    times: _containers.RepeatedScalarFieldContainer[int]
    signals: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    origin: int
    unit: int
    time: Deltas
    value: Deltas
    unwrapped: _containers.RepeatedScalarFieldContainer[int]
    senders: _containers.RepeatedScalarFieldContainer[int]
    triggers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sizes: _Optional[_Iterable[int]] = ..., times: _Optional[_Iterable[int]] = ..., signals: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., origin: _Optional[int] = ..., unit: _Optional[int] = ..., time: _Optional[_Union[Deltas, _Mapping]] = ..., value: _Optional[_Union[Deltas, _Mapping]] = ..., unwrapped: _Optional[_Iterable[int]] = ..., senders: _Optional[_Iterable[int]] = ..., triggers: _Optional[_Iterable[int]] = ...) -> None: ...

class Deltas(_message.Message):
    __slots__ = ("bases", "steps", "widths", "residuals")
    BASES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WIDTHS_FIELD_NUMBER: _ClassVar[int]
    RESIDUALS_FIELD_NUMBER: _ClassVar[int]
    bases: _containers.RepeatedScalarFieldContainer[int]
    steps: _containers.RepeatedScalarFieldContainer[int]
    widths: bytes
    residuals: bytes
    def __init__(self, bases: _Optional[_Iterable[int]] = ..., steps: _Optional[_Iterable[int]] = ..., widths: _Optional[bytes] = ..., residuals: _Optional[bytes] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("t_us", "kind", "fields")
    T_US_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    t_us: int
    kind: str
    fields: _containers.RepeatedCompositeFieldContainer[EventField]
    def __init__(self, t_us: _Optional[int] = ..., kind: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[EventField, _Mapping]]] = ...) -> None: ...

class EventField(_message.Message):
    __slots__ = ("name", "text", "integer", "number", "flag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    integer: int
    number: float
    flag: bool
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., flag: _Optional[bool] = ...) -> None: ...

class SignedAck(_message.Message):
    __slots__ = ("ack", "signature")
    ACK_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ack: bytes
    signature: bytes
    def __init__(self, ack: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("format", "vehicle", "epoch", "stored", "refused", "wanted")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    format: int
    vehicle: str
    epoch: str
    stored: _containers.RepeatedCompositeFieldContainer[Sealed]
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    wanted: _containers.RepeatedCompositeFieldContainer[Wanted]
    def __init__(self, format: _Optional[int] = ..., vehicle: _Optional[str] = ..., epoch: _Optional[str] = ..., stored: _Optional[_Iterable[_Union[Sealed, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., wanted: _Optional[_Iterable[_Union[Wanted, _Mapping]]] = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("seq", "digest")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    seq: int
    digest: bytes
    def __init__(self, seq: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Wanted(_message.Message):
    __slots__ = ("catalogue", "batches")
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    catalogue: bytes
    batches: _containers.RepeatedCompositeFieldContainer[Sealed]
    def __init__(self, catalogue: _Optional[bytes] = ..., batches: _Optional[_Iterable[_Union[Sealed, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("seq", "reason", "digest")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    seq: int
    reason: str
    digest: bytes
    def __init__(self, seq: _Optional[int] = ..., reason: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...
