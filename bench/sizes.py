"""Measures how many bytes other formats need for the same samples, and estimates the least size.

- The format of FleetWise: one protobuf row for each sample, compressed with snappy.  The row is VehicleData of
  aws-iot-fleetwise-edge (interfaces/protobuf/schemas/edgeToCloud/vehicle_data.proto), with time in milliseconds,
  signal number, and value as double.
- JSON lines, compressed with zstd, as a simple script would send them.
- The estimate: the order-0 entropy of the deltas of each column, without descriptions of signals.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from agent.formats.up.columns import Window
from can_dbc.values import physical

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_LEVEL: Final = 3


def protobuf_snappy(windows: Sequence[Window]) -> int:
    """Return the bytes of all windows in the form in which FleetWise sends them."""
    vehicle_data = _vehicle_data()
    codec = pa.Codec("snappy")
    numbers: dict[tuple[str, str], int] = {}
    total = 0
    for window in windows:
        message = vehicle_data(
            campaign_sync_id=window.campaign,
            decoder_sync_id=window.revision,
            collection_event_id=1,
            collection_event_time_ms_epoch=max(window.start_us // 1_000, 0),
        )
        for t_us, bus, name, values in _rows(window):
            number = numbers.setdefault((bus, name), len(numbers) + 1)
            relative_ms = ((t_us - window.start_us) // 1_000).tolist()
            for time_ms, value in zip(relative_ms, values.tolist(), strict=True):
                message.captured_signals.add(relative_time_ms=time_ms, signal_id=number, double_value=value)
        total += len(codec.compress(message.SerializeToString(), asbytes=True))
    return total


def json_zstd(windows: Sequence[Window]) -> int:
    """Return the bytes of all windows as JSON lines, one for each sample, compressed with zstd."""
    total = 0
    for window in windows:
        lines = []
        for t_us, bus, name, values in _rows(window):
            head = f'"bus":{json.dumps(bus)},"signal":{json.dumps(name)},"value":'
            lines += [f'{{"t":{t},{head}{value!r}}}\n' for t, value in zip(t_us.tolist(), values.tolist(), strict=True)]
        total += len(zstandard.ZstdCompressor(level=_LEVEL).compress("".join(lines).encode()))
    return total


def entropy(windows: Sequence[Window]) -> float:
    """Return the bytes that all windows would need with an ideal code for the deltas of each column."""
    bits = 0.0
    for window in windows:
        times = {group.t_us.tobytes(): group.t_us for group in window.groups}
        bits += sum(_bits(column) for column in times.values())
        bits += sum(_bits(column) for group in window.groups for column in group.raw)
    return bits / 8


def _bits(column: NDArray[np.int64]) -> float:
    if len(column) < 2:
        return 0.0
    counts = np.unique(column[1:] - column[:-1], return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def _rows(window: Window) -> "list[tuple[NDArray[np.int64], str, str, NDArray[np.float64]]]":
    return [
        (group.t_us, info.bus, info.name, physical(info, raw))
        for group in window.groups
        for info, raw in zip(group.signals, group.raw, strict=True)
    ]


def _vehicle_data() -> Any:
    """Build the protobuf message type, with only the fields that are filled here."""
    file = descriptor_pb2.FileDescriptorProto(name="bench_vehicle_data.proto", package="bench", syntax="proto3")
    signal = file.message_type.add(name="CapturedSignal")
    signal.oneof_decl.add(name="SignalValue")
    _field(signal, "relative_time_ms", 1, _FIELD.TYPE_SINT64)
    _field(signal, "signal_id", 2, _FIELD.TYPE_UINT32)
    _field(signal, "double_value", 3, _FIELD.TYPE_DOUBLE, oneof_index=0)
    data = file.message_type.add(name="VehicleData")
    _field(data, "campaign_sync_id", 1, _FIELD.TYPE_STRING)
    _field(data, "decoder_sync_id", 2, _FIELD.TYPE_STRING)
    _field(data, "collection_event_id", 3, _FIELD.TYPE_UINT32)
    _field(data, "collection_event_time_ms_epoch", 4, _FIELD.TYPE_UINT64)
    _field(data, "captured_signals", 5, _FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_REPEATED)
    data.field[-1].type_name = ".bench.CapturedSignal"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.VehicleData"))


def _field(message: Any, name: str, number: int, kind: Any, *, label: Any = _FIELD.LABEL_OPTIONAL, **more: int) -> None:
    message.field.add(name=name, number=number, type=kind, label=label, **more)
