"""Window to bytes and back: a protobuf `TelemetryBatch` in one zstd frame.  Pure.

Signals are described once per batch, as columns of their own (telemetry.proto, SignalTable); signals of one
group share their time column, and groups with equal times share it too; numbers are encoded by `delta`.
Invariant: what decodes is exactly what was encoded, bit for bit; whatever else comes in raises Untrusted and
nothing else, before memory is allocated for more than the limits below.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

import numpy as np
import zstandard
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from agent.errors import Untrusted
from agent.formats import delta
from agent.formats import telemetry_pb2 as pb
from agent.formats.columns import (
    Clock,
    ClockQuality,
    ColumnGroup,
    Event,
    EventValue,
    Kind,
    SignalInfo,
    Window,
)
from agent.formats.cut import cut

FORMAT: Final = 1
MAX_BODY_BYTES: Final = 8 * 1024 * 1024  # decompressed; objects of a forged body may take 40 times that
MAX_VALUES: Final = 8 * 1024 * 1024  # times and samples of a batch: 64 MiB as int64
MAX_SIGNALS: Final = 65_536
MAX_NAME_CHARS: Final = 500
_KINDS: Final = frozenset(int(kind) for kind in Kind)
_CLOCK_QUALITIES: Final = frozenset(int(quality) for quality in ClockQuality)
_LEVEL: Final = 3  # DESIGN §5: higher levels gain under 5 % for several times the work


class UnknownFormat(Untrusted):
    """A body of another release's format: whoever reads it is to be updated."""


def encode_window(window: Window) -> bytes:
    """The body of one batch.  Equal windows give equal bytes.  Raises ValueError above the limits of a batch."""
    if _values(window) > MAX_VALUES:
        raise ValueError(f"window of more than {MAX_VALUES} values: cut it (encode_batches)")
    body = _to_message(window).SerializeToString(deterministic=True)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"window of more than {MAX_BODY_BYTES} bytes: cut it (encode_batches)")
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(body)


def encode_batches(window: Window, max_bytes: int) -> list[bytes]:
    """The bodies of as few batches as reasonable, each of at most `max_bytes`, cut by time.

    Equal windows give equal bytes.  Raises ValueError where one sample alone exceeds `max_bytes`.
    """
    return list(_encode_parts(window, max_bytes))


def _encode_parts(window: Window, max_bytes: int) -> Iterator[bytes]:
    if _values(window) > MAX_VALUES:
        parts = -(-_values(window) // MAX_VALUES)
    else:
        body = _to_message(window).SerializeToString(deterministic=True)
        compressed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(body)
        if len(compressed) <= max_bytes and len(body) <= MAX_BODY_BYTES:
            yield compressed
            return
        # Each part describes the signals again and compresses a little worse: count that in at once.
        parts = max(-(-len(compressed) * 11 // (max_bytes * 10)), -(-len(body) // MAX_BODY_BYTES))
    for part in cut(window, max(parts, 2)):
        yield from _encode_parts(part, max_bytes)


def decode_window(body: bytes) -> Window:
    """Read the body of a batch.  Raises Untrusted on anything malformed or above the limits."""
    message = pb.TelemetryBatch()
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size > MAX_BODY_BYTES:  # unknown size is the largest of all
            raise Untrusted(f"batch of {size} bytes exceeds {MAX_BODY_BYTES}")
        message.ParseFromString(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))
        return _to_window(message)
    except zstandard.ZstdError as error:
        raise Untrusted(f"batch does not decompress: {error}") from error
    except DecodeError as error:
        raise Untrusted("batch is not a protobuf message of ours") from error
    except delta.MalformedError as error:
        raise Untrusted(f"batch is malformed: {error}") from error


# ---------------------------------------------------------------- writing


def _values(window: Window) -> int:
    return sum(group.raw.size + group.t_us.size for group in window.groups)


def _to_message(window: Window) -> pb.TelemetryBatch:
    times: dict[bytes, int] = {}
    columns: list[NDArray[np.int64]] = []
    time_of = []
    for group in window.groups:
        key = group.t_us.tobytes()
        if key not in times:
            times[key] = len(columns)
            columns.append(group.t_us)
        time_of.append(times[key])
    tables = delta.encode([group.raw for group in window.groups], [_wraps(group.signals) for group in window.groups])
    groups = [pb.ColumnGroup(time=time, values=_table(deltas)) for time, deltas in zip(time_of, tables, strict=True)]
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
        signals=_signal_table(window.groups),
        times=_time_table(columns),
        groups=groups,
        events=[_event_message(event) for event in window.events],
    )


def _wraps(signals: Sequence[SignalInfo]) -> NDArray[np.uint8]:
    return np.array([s.bits | (delta.SIGNED if s.kind is Kind.INT else 0) for s in signals], np.uint8)


def _table(deltas: delta.Deltas, counts: Sequence[int] = ()) -> pb.DeltaTable:
    return pb.DeltaTable(
        counts=counts,
        bases=deltas.bases.tolist(),
        steps=deltas.steps.tolist(),
        widths=deltas.widths.tobytes(),
        residuals=deltas.residuals,
        wraps=deltas.wraps.tobytes() if deltas.wraps.any() else b"",
        units=deltas.units.tolist() if (deltas.units > 1).any() else (),
    )


def _time_table(columns: Sequence[NDArray[np.int64]]) -> pb.DeltaTable:
    if not columns:
        return pb.DeltaTable()
    return _table(delta.encode_times(columns), [len(column) for column in columns])


def _signal_table(groups: Sequence[ColumnGroup]) -> pb.SignalTable:
    signals = [signal for group in groups for signal in group.signals]
    strings: dict[str, int] = {"": 0}
    buses = [strings.setdefault(signal.bus, len(strings)) for signal in signals]
    patterns = delta.patterns([(signal.scale, signal.offset) for signal in signals])
    types: dict[tuple[str | None, Kind, int, int, int], int] = {}
    type_of = [
        types.setdefault((signal.unit, signal.kind, signal.bits, scale, offset), len(types))
        for signal, (scale, offset) in zip(signals, patterns, strict=True)
    ]
    tables: dict[tuple[tuple[int, str], ...], int] = {(): 0}
    text_of = [
        tables.setdefault(tuple(sorted(texts.items())), len(tables)) for group in groups for texts in group.texts
    ]
    return pb.SignalTable(
        names=_join_names([signal.name for signal in signals]),
        buses=buses,
        types=type_of,
        units=[strings.setdefault(unit or "", len(strings)) for unit, *_ in types],
        kinds=bytes(kind for _, kind, *_ in types),
        bits=bytes(bits for _, _, bits, *_ in types),
        scales=delta.split_bytes([scale for *_, scale, _ in types]),
        offsets=delta.split_bytes([offset for *_, offset in types]),
        texts=text_of,
        text_counts=[len(table) for table in tables],
        text_raws=[raw for table in tables for raw, _ in table],
        text_values=[strings.setdefault(text, len(strings)) for table in tables for _, text in table],
        strings=list(strings),
    )


def _join_names(names: Sequence[str]) -> str:
    """Raises ValueError for a name that cannot be told apart again."""
    if len(names) > MAX_SIGNALS:
        raise ValueError(f"window of {len(names)} signals, a batch holds {MAX_SIGNALS}")
    short = []
    previous = None
    for name in names:
        owner, last = _owner_and_last(name)
        short.append(last if owner == previous and last is not name else name)
        previous = owner
    return "\n".join(short)


@lru_cache(maxsize=8_192)
def _owner_and_last(name: str) -> tuple[str, str]:
    """What stands before the last dot, and the rest with it; of a name without a dot nothing, and itself.

    Raises ValueError for a name that cannot be told apart again.
    """
    if "\n" in name or name.startswith(".") or not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"signal name {name!r} is empty, too long, begins with a dot or holds a line break")
    owner, dot, last = name.rpartition(".")
    return owner, dot + last if dot else name


def _split_names(joined: str) -> list[str]:
    """Raises delta.MalformedError."""
    if joined.count("\n") >= MAX_SIGNALS:
        raise delta.MalformedError(f"more than {MAX_SIGNALS} signals")
    names = []
    owner = ""
    for short in joined.split("\n") if joined else ():
        name = owner + short if short.startswith(".") else short
        owner = name.rpartition(".")[0]
        if len(name) > MAX_NAME_CHARS or name.startswith("."):
            raise delta.MalformedError("a signal name that is too long, or short for none")
        names.append(name)
    return names


def _event_message(event: Event) -> pb.Event:
    fields = [_field_message(name, value) for name, value in sorted(event.fields.items())]
    return pb.Event(t_us=event.t_us, kind=event.kind, fields=fields)


def _field_message(name: str, value: EventValue) -> pb.EventField:
    if isinstance(value, bool):  # before int, which bool is too
        return pb.EventField(name=name, flag=value)
    if isinstance(value, int):
        return pb.EventField(name=name, integer=value)
    if isinstance(value, float):
        return pb.EventField(name=name, number=value)
    return pb.EventField(name=name, text=value)


# ---------------------------------------------------------------- reading


def _to_window(message: pb.TelemetryBatch) -> Window:
    """Raises Untrusted and delta.MalformedError."""
    if message.format != FORMAT:
        raise UnknownFormat(f"batch has format {message.format}, we read {FORMAT}: update the receiver")
    signals, texts = _read_signals(message.signals)
    _check_counts(message, len(signals))
    times = _read_times(message.times)
    groups = []
    first = 0
    for group in message.groups:
        count = len(group.values.bases)
        t_us = times[group.time]
        groups.append(
            ColumnGroup(
                t_us,
                tuple(signals[first : first + count]),
                delta.decode(_read_table(group.values), len(t_us)),
                tuple(texts[first : first + count]),
            )
        )
        first += count
    clock = message.clock
    # A quality of tomorrow is believed least today: it says how far to trust the times, not what was
    # measured.
    known = clock.quality in _CLOCK_QUALITIES
    quality = ClockQuality(clock.quality) if known else ClockQuality.UNSYNCHRONISED
    return Window(
        message.campaign,
        message.revision,
        message.start_us,
        message.end_us,
        Clock(quality, clock.boot_id, clock.wall_us, clock.boottime_us),
        tuple(groups),
        tuple(_read_event(event) for event in message.events),
    )


def _check_counts(message: pb.TelemetryBatch, signals: int) -> None:
    """Everything that decides how much will be allocated."""
    counts = message.times.counts
    if len(counts) != len(message.times.bases):
        raise delta.MalformedError("times and their counts of different number")
    if any(group.time >= len(counts) for group in message.groups):
        raise delta.MalformedError("a group of a time column that is not there")
    tables = [group.values for group in message.groups]
    if any(not table.bases for table in tables):
        raise delta.MalformedError("a group of no signals")
    if sum(len(table.bases) for table in tables) != signals:
        raise delta.MalformedError("descriptions of another number of signals than there are columns")
    values = sum(counts[group.time] * len(group.values.bases) for group in message.groups)
    if values + sum(counts) > MAX_VALUES:
        raise delta.MalformedError(f"more than {MAX_VALUES} values")


def _read_table(table: pb.DeltaTable) -> delta.Deltas:
    columns = len(table.bases)
    if not len(table.steps) == len(table.widths) == columns:
        raise delta.MalformedError("columns of different number")
    if len(table.wraps) not in (0, columns) or len(table.units) not in (0, columns):
        raise delta.MalformedError("wraps or units of another number than columns")
    if max(table.units, default=0) >= 1 << 63:
        raise delta.MalformedError("a unit beyond 63 bits")
    return delta.Deltas(
        np.array(table.bases, np.int64),
        np.array(table.steps, np.int64),
        np.frombuffer(table.widths, np.uint8),
        table.residuals,
        np.frombuffer(table.wraps, np.uint8) if table.wraps else np.zeros(columns, np.uint8),
        np.array(table.units, np.int64) if table.units else np.ones(columns, np.int64),
    )


def _read_times(table: pb.DeltaTable) -> list[NDArray[np.int64]]:
    """Every time column; the residuals of each are cut out of those of all, which stand by width."""
    whole = _read_table(table)
    sizes = whole.widths.astype(np.int64) * (np.array(table.counts, np.int64) - 1)
    if (sizes < 0).any() or int(sizes.sum()) != len(whole.residuals):
        raise delta.MalformedError("residuals of times of another length than their widths and counts say")
    order = np.argsort(whole.widths, kind="stable")
    starts = np.empty(len(order), np.int64)
    starts[order] = np.cumsum(sizes[order]) - sizes[order]
    times = []
    for i, count in enumerate(table.counts):
        one = slice(i, i + 1)
        residuals = whole.residuals[starts[i] : starts[i] + sizes[i]]
        column = delta.Deltas(
            whole.bases[one], whole.steps[one], whole.widths[one], residuals, whole.wraps[one], whole.units[one]
        )
        times.append(delta.decode(column, count)[0])
    return times


def _read_signals(table: pb.SignalTable) -> tuple[list[SignalInfo], list[Mapping[int, str]]]:
    names, strings = _split_names(table.names), list(table.strings)
    types, tables = _read_types(table, strings), _read_texts(table, strings)
    if not len(names) == len(table.buses) == len(table.types) == len(table.texts):
        raise delta.MalformedError("signal descriptions of different number")
    _check_indices(table.buses, strings)
    _check_indices(table.types, types)
    _check_indices(table.texts, tables)
    signals = [
        SignalInfo(name, strings[bus], *types[number])
        for name, bus, number in zip(names, table.buses, table.types, strict=True)
    ]
    return signals, [tables[number] for number in table.texts]


_Type = tuple[str | None, Kind, int, float, float]


def _read_types(table: pb.SignalTable, strings: Sequence[str]) -> list[_Type]:
    scales, offsets = delta.join_bytes(table.scales), delta.join_bytes(table.offsets)
    if not len(table.units) == len(table.kinds) == len(table.bits) == len(scales) == len(offsets):
        raise delta.MalformedError("signal types of different number")
    if not _KINDS.issuperset(table.kinds) or any(not 1 <= bits <= 64 for bits in table.bits):
        raise delta.MalformedError("a signal of unknown kind or impossible length")
    _check_indices(table.units, strings)
    units = [strings[unit] or None for unit in table.units]
    return list(zip(units, map(Kind, table.kinds), table.bits, scales, offsets, strict=True))


def _read_texts(table: pb.SignalTable, strings: Sequence[str]) -> list[Mapping[int, str]]:
    if not len(table.text_raws) == len(table.text_values) == sum(table.text_counts):
        raise delta.MalformedError("texts of another number than their counts say")
    _check_indices(table.text_values, strings)
    entries = zip(table.text_raws, (strings[value] for value in table.text_values), strict=True)
    return [dict(islice(entries, count)) for count in table.text_counts]


def _check_indices(indices: Sequence[int], entries: Sequence[object]) -> None:
    if len(indices) and max(indices) >= len(entries):
        raise delta.MalformedError("an index of an entry that is not there")


def _read_event(event: pb.Event) -> Event:
    fields = {field.name: _field_value(field) for field in event.fields if field.WhichOneof("value")}
    return Event(event.t_us, event.kind, fields)


def _field_value(field: pb.EventField) -> EventValue:
    which = field.WhichOneof("value")
    assert which is not None  # the caller skips values of a type that we do not know
    value: EventValue = getattr(field, which)
    return value
