"""Window to bytes and back: a protobuf `TelemetryBatch` in one zstd frame.  Pure.

Signals of one group share their time column, and groups with equal times share it too; numbers are encoded by `delta`.
Signals are described by a catalogue that the receiver has (`catalogue`), or in the batch itself (`descriptions`).
Invariant: what decodes is exactly what was encoded, bit for bit; whatever else comes in raises Untrusted, or
UnknownCatalogue where it can be read later, and nothing else, before memory is allocated for more than the limits
below.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import zstandard
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.up import delta
from agent.formats.up.catalogue import DIGEST_BYTES, Catalogue, UnknownCatalogue, read_catalogue
from agent.formats.up.columns import Clock, ClockQuality, ColumnGroup, Event, EventValue, SignalInfo, Window
from agent.formats.up.cut import cut
from agent.formats.up.descriptions import MAX_SIGNALS, Described, read_table, wraps_of, write_table
from agent.formats.up.layout import self_described

FORMAT: Final = 1
MAX_BODY_BYTES: Final = 8 * 1024 * 1024  # decompressed; objects of a forged body may take 40 times that
MAX_VALUES: Final = 8 * 1024 * 1024  # times and samples of a batch: 64 MiB as int64
MAX_REPLACES: Final = 4_096
_MOST_SENDERS: Final = 256  # of one message: a J1939 source address is a byte
_CLOCK_QUALITIES: Final = frozenset(int(quality) for quality in ClockQuality)
_LEVEL: Final = 6  # 3 to 9 % less than 3 for some 3 ns a sample (docs/decisions/0007)
_CATALOGUE_LEVEL: Final = 19  # made once a revision of a campaign
_compressors: Final[list[zstandard.ZstdCompressor]] = []  # not at work; making one costs as much as a small batch

FindCatalogue = Callable[[bytes], Catalogue | None]


class UnknownFormat(Untrusted):
    """The body has a format that this release cannot read, so the reader must be updated."""


def no_catalogues(_: bytes) -> None:
    """For those who have none."""


def encode_window(window: Window, catalogue: Catalogue | None = None) -> bytes:
    """The body of one batch, which describes by itself what `catalogue` does not.

    Equal arguments give equal bytes.  Raises ValueError above the limits of a batch.
    """
    if _values(window) > MAX_VALUES:
        raise ValueError(f"window of more than {MAX_VALUES} values: cut it (encode_parts)")
    body = _to_message(window, catalogue).SerializeToString(deterministic=True)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"window of more than {MAX_BODY_BYTES} bytes: cut it (encode_parts)")
    return _compress(body)


def encode_parts(window: Window, max_bytes: int, catalogue: Catalogue | None = None) -> Iterator[tuple[Window, bytes]]:
    """Cut a window by time into as few batches of at most `max_bytes` as reasonable; give each fragment and its body.

    Equal arguments give equal bytes.  Raises ValueError where one sample alone exceeds `max_bytes`.
    """
    signals = sum(len(group.signals) for group in window.groups)
    if _values(window) > MAX_VALUES or signals > MAX_SIGNALS:  # messages of J1939 count once for each sender
        parts = max(-(-_values(window) // MAX_VALUES), -(-signals // MAX_SIGNALS))
    else:
        body = _to_message(window, catalogue).SerializeToString(deterministic=True)
        compressed = _compress(body)
        if len(compressed) <= max_bytes and len(body) <= MAX_BODY_BYTES:
            yield window, compressed
            return
        # Each part describes the signals again and compresses a little worse: count that in at once.
        parts = max(-(-len(compressed) * 11 // (max_bytes * 10)), -(-len(body) // MAX_BODY_BYTES))
    for part in cut(window, max(parts, 2)):
        yield from encode_parts(part, max_bytes, catalogue)


def encode_catalogue(catalogue: Catalogue, t_us: int, clock: Clock) -> bytes:
    """The body of a batch that carries `catalogue` and nothing else."""
    message = _envelope(Window(catalogue.campaign, catalogue.revision, t_us, t_us + 1, clock, ()))
    message.carried = catalogue.content
    compressor = zstandard.ZstdCompressor(level=_CATALOGUE_LEVEL, write_content_size=True)
    return compressor.compress(message.SerializeToString(deterministic=True))


def decode_window(body: bytes, find: FindCatalogue = no_catalogues) -> Window:
    """Read the body of a batch; `find` gives catalogues by digest.

    Raises UnknownCatalogue where that has not the one needed, Untrusted on anything malformed or above the limits.
    """
    return decode_batch(body, find)[0]


def decode_batch(body: bytes, find: FindCatalogue = no_catalogues) -> tuple[Window, Catalogue | None]:
    """As `decode_window`, with the catalogue that the batch carries."""
    message = pb.TelemetryBatch()
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size > MAX_BODY_BYTES:  # unknown size is the largest of all
            raise Untrusted(f"batch of {size} bytes exceeds {MAX_BODY_BYTES}")
        message.ParseFromString(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))
        if message.format != FORMAT:
            raise UnknownFormat(
                f"The batch has format {message.format}, and this receiver reads format {FORMAT}: update the receiver."
            )
        carried = read_catalogue(message.carried) if message.carried else None
        catalogue = _find(message.catalogue, find)
        return _window(message, catalogue, _read_groups(message, catalogue)), carried
    except zstandard.ZstdError as error:
        raise Untrusted(f"batch does not decompress: {error}") from error
    except DecodeError as error:
        raise Untrusted("batch is not a protobuf message of ours") from error
    except delta.MalformedError as error:
        raise Untrusted(f"batch is malformed: {error}") from error


# ---------------------------------------------------------------- writing


def _values(window: Window) -> int:
    return sum(group.raw.size + group.t_us.size for group in window.groups)


def _compress(body: bytes) -> bytes:
    try:
        compressor = _compressors.pop()  # nobody else has it now
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
        replaces=[number - before for before, number in pairwise((0, *window.replaces))],
    )


def _to_message(window: Window, catalogue: Catalogue | None) -> pb.TelemetryBatch:
    message = _envelope(window)
    if not window.groups:
        return message
    if catalogue is not None and (catalogue.campaign, catalogue.revision) != (window.campaign, window.revision):
        catalogue = None
    layout = self_described(window.groups) if catalogue is None else catalogue.layout(window.groups)
    values = delta.encode([group.raw for group in window.groups], layout.wraps)
    columns = message.columns
    columns.ParseFromString(layout.columns)
    _write_deltas(columns.value, values)
    columns.unwrapped.extend((values.wraps != layout.wraps).nonzero()[0].tolist())
    _write_times(window, columns)
    if layout.described:
        message.signals.CopyFrom(write_table(layout.described))
    if catalogue is not None:
        message.catalogue = catalogue.digest
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
    columns.origin = _int64(origin_us - window.start_us)
    columns.unit = encoded.unit
    _write_deltas(columns.time, encoded)


def _distinct(columns: list[NDArray[np.int64]]) -> tuple[list[NDArray[np.int64]], Sequence[int]]:
    """The columns without repetition, and which of them each is."""
    # Mostly the ends tell that all differ.
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


def _int64(value: int) -> int:
    """Modulo 2^64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _write_deltas(message: pb.Deltas, deltas: delta.Deltas) -> None:
    message.bases.extend(deltas.bases.tolist())
    message.steps.extend(deltas.steps.tolist())
    message.widths = deltas.widths.tobytes()
    message.residuals = deltas.residuals


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


def _window(message: pb.TelemetryBatch, catalogue: Catalogue | None, groups: tuple[ColumnGroup, ...]) -> Window:
    clock = message.clock
    # A quality of tomorrow is believed least today: it says how far to trust the times, not what was
    # measured.
    known = clock.quality in _CLOCK_QUALITIES
    quality = ClockQuality(clock.quality) if known else ClockQuality.UNSYNCHRONISED
    return Window(
        message.campaign if catalogue is None else catalogue.campaign,
        message.revision if catalogue is None else catalogue.revision,
        message.start_us,
        message.end_us,
        Clock(quality, clock.boot_id, clock.wall_us, clock.boottime_us),
        groups,
        tuple(_read_event(event) for event in message.events),
        _read_replaces(message.replaces),
    )


def _read_replaces(steps: Sequence[int]) -> tuple[int, ...]:
    """Raises delta.MalformedError."""
    if len(steps) > MAX_REPLACES or 0 in steps:
        raise delta.MalformedError("batches to replace that are too many, or not in ascending order")
    return tuple(accumulate(steps))


def _find(digest: bytes, find: FindCatalogue) -> Catalogue | None:
    """Raises UnknownCatalogue and delta.MalformedError."""
    if not digest:
        return None
    if len(digest) != DIGEST_BYTES:
        raise delta.MalformedError("a digest of another length than digests have")
    catalogue = find(digest)
    if catalogue is None:
        raise UnknownCatalogue(digest)
    return catalogue


def _read_groups(message: pb.TelemetryBatch, catalogue: Catalogue | None) -> tuple[ColumnGroup, ...]:
    """Raises delta.MalformedError."""
    columns = message.columns
    sizes, time_of = list(columns.sizes), list(columns.times) or list(range(len(columns.sizes)))
    senders = list(columns.senders) or [0] * len(sizes)
    _check_counts(columns, sizes, time_of, senders)
    own = read_table(message.signals)
    numbers = _numbers(columns, len(own) if catalogue is None else len(catalogue.described) + len(own))
    signals = [_describe(number, catalogue, own) for number in numbers]
    counts = np.array(columns.counts, np.int64)
    times = delta.decode(_read_deltas(columns.time, np.zeros(len(counts), np.uint8), columns.unit), counts)
    times += _int64(message.start_us + columns.origin)
    wraps = wraps_of(signal for signal, _ in signals)
    wraps[list(columns.unwrapped)] = 0
    values = delta.decode(_read_deltas(columns.value, wraps, 1), np.repeat(counts[time_of], sizes))
    time_starts = (np.cumsum(counts) - counts).tolist()
    groups = []
    first = start = 0
    for size, time, sender in zip(sizes, time_of, senders, strict=True):
        count = columns.counts[time]
        raw = values[start : start + size * count].reshape(size, count)
        chosen = signals[first : first + size]
        texts = tuple(texts_in(row) for (_, texts_in), row in zip(chosen, raw, strict=True))
        t_us = times[time_starts[time] : time_starts[time] + count]
        source_address = sender - 1 if sender else None
        groups.append(ColumnGroup(t_us, tuple(signal for signal, _ in chosen), raw, texts, source_address))
        first, start = first + size, start + size * count
    return tuple(groups)


def _check_counts(columns: pb.Columns, sizes: Sequence[int], time_of: Sequence[int], senders: Sequence[int]) -> None:
    """Everything that decides how much will be allocated."""
    counts = columns.counts
    if not len(sizes) == len(time_of) == len(senders):
        raise delta.MalformedError("groups, their times and their senders of different number")
    if any(sender > _MOST_SENDERS for sender in senders):
        raise delta.MalformedError("a source address beyond one byte")
    if any(time >= len(counts) for time in time_of):
        raise delta.MalformedError("a group of a time column that is not there")
    if 0 in sizes:
        raise delta.MalformedError("a group of no signals")
    if sum(sizes) != len(columns.value.bases):
        raise delta.MalformedError("groups of another number of signals than there are columns")
    if any(place >= sum(sizes) for place in columns.unwrapped):
        raise delta.MalformedError("a column unwrapped that is not there")
    values = sum(counts[time] * size for time, size in zip(time_of, sizes, strict=True))
    if values + sum(counts) > MAX_VALUES:
        raise delta.MalformedError(f"more than {MAX_VALUES} values")


def _numbers(columns: pb.Columns, entries: int) -> list[int]:
    """Which of `entries` descriptions each column has."""
    count = len(columns.value.bases)
    numbers = np.arange(count)
    if columns.signals:
        numbers = np.cumsum(np.array(columns.signals, np.int64) + 1) - 1
    if len(numbers) != count:
        raise delta.MalformedError("numbers of another number of signals than there are columns")
    if ((numbers < 0) | (numbers >= entries)).any():
        raise delta.MalformedError("a signal that nothing describes")
    found: list[int] = numbers.tolist()
    return found


def _describe(
    number: int, catalogue: Catalogue | None, own: Sequence[Described]
) -> tuple[SignalInfo, Callable[[NDArray[np.int64]], Mapping[int, str]]]:
    """Signal `number`, and which texts raw values of it have."""
    if catalogue is not None:
        if number < len(catalogue.described):
            return catalogue.described[number][0], partial(catalogue.texts, number)
        number -= len(catalogue.described)
    signal, texts = own[number]
    return signal, lambda _: texts


def _read_deltas(deltas: pb.Deltas, wraps: NDArray[np.uint8], unit: int) -> delta.Deltas:
    return delta.Deltas(
        np.array(deltas.bases, np.int64),
        np.array(deltas.steps, np.int64),
        np.frombuffer(deltas.widths, np.uint8),
        deltas.residuals,
        wraps,
        unit,
    )


def _read_event(event: pb.Event) -> Event:
    fields = {field.name: _field_value(field) for field in event.fields if field.WhichOneof("value")}
    return Event(event.t_us, event.kind, fields)


def _field_value(field: pb.EventField) -> EventValue:
    which = field.WhichOneof("value")
    assert which is not None  # the caller skips values of a type that we do not know
    value: EventValue = getattr(field, which)
    return value
