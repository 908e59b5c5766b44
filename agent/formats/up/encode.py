"""Encode a window as the body of a batch: a protobuf `TelemetryBatch` in one zstd frame.  Pure.

The signals of a group share a time column, and so do groups with equal times.  Numbers are encoded by `delta`.  Signals
are described by a catalogue that the receiver has (`catalogue`), or in the batch itself (`descriptions`).

Invariants: equal arguments give equal bytes, and `decode` returns exactly what was encoded, bit for bit.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from agent.formats import telemetry_pb2 as pb
from agent.formats.up import delta
from agent.formats.up.catalogue import Catalogue
from agent.formats.up.columns import Clock, Event, EventValue, Window
from agent.formats.up.cut import cut
from agent.formats.up.descriptions import write_table
from agent.formats.up.layout import layout_of
from agent.formats.up.limits import FORMAT, MAX_BODY_BYTES, MAX_EVENTS, MAX_ROW_CHARS, MAX_SIGNALS, MAX_VALUES
from agent.formats.up.row_chars import row_chars

_LEVEL: Final = 6  # bodies are 3 to 9 % smaller than at level 3, for some 3 ns a sample (docs/decisions/0007)
_CATALOGUE_LEVEL: Final = 19  # a catalogue is compressed only once for each revision of a campaign
# The list holds compressors that no thread uses at the moment.  Making a compressor takes as long as compressing a
# small batch.
_compressors: Final[list[zstandard.ZstdCompressor]] = []


def encode_window(window: Window, catalogue: Catalogue | None = None) -> bytes:
    """Return the body of one batch.  The batch itself describes the signals that `catalogue` does not describe.

    Raises: ValueError if the window exceeds the limits of a batch.
    """
    if _least_fragments(window) > 1:
        raise ValueError("The window has too many values, columns, texts or events for a batch: use encode_fragments.")
    body = _to_message(window, catalogue).SerializeToString(deterministic=True)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"The window has more than {MAX_BODY_BYTES} bytes: cut it with encode_fragments.")
    return _compress(body)


def encode_fragments(
    window: Window, max_bytes: int, catalogue: Catalogue | None = None
) -> Iterator[tuple[Window, bytes]]:
    """Cut the window into fragments, and yield each fragment with the body of its batch.

    A body has at most `max_bytes`.  A window that fits into one batch is yielded uncut.  Fragments with samples are in
    order of time.

    Raises: ValueError if one sample or event alone exceeds `max_bytes`.
    """
    count = _least_fragments(window)
    if count == 1:
        body = _to_message(window, catalogue).SerializeToString(deterministic=True)
        compressed = _compress(body)
        if len(compressed) <= max_bytes and len(body) <= MAX_BODY_BYTES:
            yield window, compressed
            return
        # Each fragment describes the signals again and compresses a little worse, so the estimate adds a tenth.
        count = max(-(-len(compressed) * 11 // (max_bytes * 10)), -(-len(body) // MAX_BODY_BYTES))
    for fragment in cut(window, max(count, 2)):
        yield from encode_fragments(fragment, max_bytes, catalogue)


def encode_catalogue(catalogue: Catalogue, t_us: int, clock: Clock) -> bytes:
    """Return the body of a batch that carries `catalogue`, and no samples or events."""
    message = _envelope(Window(catalogue.campaign, catalogue.revision, t_us, t_us + 1, clock, ()))
    message.carried = catalogue.content
    compressor = zstandard.ZstdCompressor(level=_CATALOGUE_LEVEL, write_content_size=True)
    return compressor.compress(message.SerializeToString(deterministic=True))


def _least_fragments(window: Window) -> int:
    """Return the smallest number of fragments that could each keep the limits of a batch."""
    values = sum(group.raw.size + group.t_us.size for group in window.groups)
    signals = sum(len(group.signals) for group in window.groups)  # messages of J1939 count once for each sender
    return max(
        1,
        -(-values // MAX_VALUES),
        -(-signals // MAX_SIGNALS),
        -(-row_chars(window.groups) // MAX_ROW_CHARS),
        -(-len(window.events) // MAX_EVENTS),
    )


def _compress(body: bytes) -> bytes:
    try:
        compressor = _compressors.pop()  # pop is atomic, so two threads never share a compressor
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
    try:
        return compressor.compress(body)
    finally:
        _compressors.append(compressor)


def _envelope(window: Window) -> pb.TelemetryBatch:
    return pb.TelemetryBatch(
        format=FORMAT,
        campaign=window.campaign,
        revision=window.revision,
        start_us=window.start_us,
        end_us=window.end_us,
        clock=pb.Clock(
            quality=f"CLOCK_QUALITY_{window.clock.quality.name}",
            boot_id=window.clock.boot_id,
            wall_us=window.clock.wall_us,
            boottime_us=window.clock.boottime_us,
        ),
        events=[_event_message(event) for event in window.events],
        window=bytes.fromhex(window.id),
    )


def _to_message(window: Window, catalogue: Catalogue | None) -> pb.TelemetryBatch:
    message = _envelope(window)
    if not window.groups:
        return message
    if catalogue is not None and (catalogue.campaign, catalogue.revision) != (window.campaign, window.revision):
        catalogue = None
    layout = layout_of(window.groups, catalogue)
    values = delta.encode([group.raw for group in window.groups], layout.wraps)
    columns = message.columns
    columns.sizes.extend([len(group.signals) for group in window.groups])
    if any(group.source_address is not None for group in window.groups):
        columns.senders.extend(
            0 if group.source_address is None else group.source_address + 1 for group in window.groups
        )
    if any(group.trigger is not None for group in window.groups):
        columns.triggers.extend(group.trigger or 0 for group in window.groups)
    if layout.numbers is not None:
        # Most signals have the order of the catalogue, so most of these differences are 0 and compress well.
        ascent = layout.numbers.copy()
        ascent[1:] -= layout.numbers[:-1] + 1
        columns.signals.extend(ascent.tolist())
    _write_deltas(columns.value, values)
    columns.unwrapped.extend((values.wraps != layout.wraps).nonzero()[0].tolist())
    _write_times(window, columns)
    if layout.described:
        message.signals.CopyFrom(write_table(layout.described))
    if catalogue is not None:
        message.catalogue = catalogue.digest
        # The catalogue already names the campaign and the revision.
        message.ClearField("campaign")
        message.ClearField("revision")
    return message


def _write_times(window: Window, columns: pb.Columns) -> None:
    times, time_of = _distinct([group.t_us for group in window.groups])
    if len(times) < len(time_of):
        columns.times.extend(time_of)
    origin_us = min(column.item(0) for column in times)
    encoded = delta.encode_times(times, origin_us)
    columns.counts.extend(map(len, times))
    columns.origin = delta.int64(origin_us - window.start_us)
    columns.unit = encoded.unit
    _write_deltas(columns.time, encoded)


def _distinct(columns: list[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], Sequence[int]]:
    """Return the columns without duplicates, and for each of `columns` its index in the result."""
    # In most batches, the lengths, first times and last times already show that all columns differ.
    if len({(len(column), column.item(0), column.item(-1)) for column in columns}) == len(columns):
        return columns, range(len(columns))
    numbers: dict[bytes, int] = {}
    distinct: list[NDArray[np.int64]] = []
    number_of = []
    for column in columns:
        key = column.tobytes()
        if key not in numbers:
            numbers[key] = len(distinct)
            distinct.append(column)
        number_of.append(numbers[key])
    return distinct, number_of


def _write_deltas(message: pb.Deltas, deltas: delta.Deltas) -> None:
    message.bases.extend(deltas.bases.tolist())
    message.steps.extend(deltas.steps.tolist())
    message.widths = deltas.widths.tobytes()
    message.residuals = deltas.residuals


def _event_message(event: Event) -> pb.Event:
    fields = [_field_message(name, value) for name, value in sorted(event.fields.items())]
    return pb.Event(t_us=event.t_us, kind=event.kind, fields=fields)


def _field_message(name: str, value: EventValue) -> pb.EventField:
    if isinstance(value, bool):  # this check comes first, because a bool is also an int
        return pb.EventField(name=name, flag=value)
    if isinstance(value, int):
        return pb.EventField(name=name, integer=value)
    if isinstance(value, float):
        return pb.EventField(name=name, number=value)
    return pb.EventField(name=name, text=value)
