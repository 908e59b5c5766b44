"""Decoding of batches: from the body of a batch back to its window.  Pure.

Bodies come from outside.  A body that cannot be decoded raises Untrusted, or UnknownCatalogue if it can be read later,
and nothing else.  Memory is allocated only for what `limits` allows and the bytes that are there can back.
"""

from collections.abc import Callable, Sequence

import numpy as np
import zstandard
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.up import delta
from agent.formats.up.catalogue import DIGEST_BYTES, Catalogue, UnknownCatalogue, read_catalogue
from agent.formats.up.columns import Clock, ClockQuality, ColumnGroup, Described, Event, EventValue, Window
from agent.formats.up.descriptions import read_table, wraps_of
from agent.formats.up.limits import FORMAT, MAX_BODY_BYTES, MAX_SENDERS, MAX_VALUES

_CLOCK_QUALITIES = frozenset(int(quality) for quality in ClockQuality)

FindCatalogue = Callable[[bytes], Catalogue | None]


class UnknownFormat(Untrusted):
    """The body has a format that this release cannot read, so the reader must be updated."""


def no_catalogues(_: bytes) -> None:
    """Find no catalogue: for readers that keep none."""


def decode_window(body: bytes, find: FindCatalogue = no_catalogues) -> Window:
    """Read the body of a batch; `find` gives catalogues by digest.

    Raises UnknownCatalogue if `find` does not return the batch's catalogue, Untrusted for a body that is malformed
    or above the limits.
    """
    return decode_batch(body, find)[0]


def decode_batch(body: bytes, find: FindCatalogue = no_catalogues) -> tuple[Window, Catalogue | None]:
    """Read as `decode_window` does; return the window, and the catalogue that the batch carries."""
    message = pb.TelemetryBatch()
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size > MAX_BODY_BYTES:  # zstd gives an unknown size as the largest number
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


def _window(message: pb.TelemetryBatch, catalogue: Catalogue | None, groups: tuple[ColumnGroup, ...]) -> Window:
    clock = message.clock
    # A quality that a later release adds is believed least: it says how far to trust the times, not what was measured.
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
    )


def _find(digest: bytes, find: FindCatalogue) -> Catalogue | None:
    """Find the catalogue of the batch.  Raises UnknownCatalogue and delta.MalformedError."""
    if not digest:
        return None
    if len(digest) != DIGEST_BYTES:
        raise delta.MalformedError("a digest of another length than digests have")
    catalogue = find(digest)
    if catalogue is None:
        raise UnknownCatalogue(digest)
    return catalogue


def _read_groups(message: pb.TelemetryBatch, catalogue: Catalogue | None) -> tuple[ColumnGroup, ...]:
    """Read all column groups.  Raises delta.MalformedError."""
    columns = message.columns
    sizes, time_of = list(columns.sizes), list(columns.times) or list(range(len(columns.sizes)))
    senders = list(columns.senders) or [0] * len(sizes)
    _check_counts(columns, sizes, time_of, senders)
    own: list[Described] = read_table(message.signals)
    numbers = _numbers(columns, len(own) if catalogue is None else len(catalogue.described) + len(own))
    described = own if catalogue is None else [*catalogue.described, *own]
    signals = [described[number] for number in numbers]
    counts = np.array(columns.counts, np.int64)
    times = delta.decode(_read_deltas(columns.time, np.zeros(len(counts), np.uint8), columns.unit), counts)
    times += delta.int64(message.start_us + columns.origin)
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
        t_us = times[time_starts[time] : time_starts[time] + count]
        source_address = sender - 1 if sender else None
        infos, tables = tuple(signal for signal, _ in chosen), tuple(table for _, table in chosen)
        groups.append(ColumnGroup(t_us, infos, raw, tables, source_address))
        first, start = first + size, start + size * count
    return tuple(groups)


def _check_counts(columns: pb.Columns, sizes: Sequence[int], time_of: Sequence[int], senders: Sequence[int]) -> None:
    """Check everything that decides how much will be allocated."""
    counts = columns.counts
    if not len(sizes) == len(time_of) == len(senders):
        raise delta.MalformedError("groups, their times and their senders of different number")
    if any(sender > MAX_SENDERS for sender in senders):
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
    """Return which of `entries` descriptions each column has."""
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
