"""Decode the body of a batch to its window.  Pure.

Bodies come from outside.  A body that cannot be decoded raises Untrusted.  A body whose catalogue is missing raises
UnknownCatalogue, because the body can be decoded after the catalogue has arrived.

Memory is allocated only after all counts are checked against `limits` and the size of the body.
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
from agent.formats.up.limits import (
    FORMAT,
    MAX_BODY_BYTES,
    MAX_EVENT_FIELDS,
    MAX_EVENTS,
    MAX_LABEL_CHARS,
    MAX_ROW_CHARS,
    MAX_SENDERS,
    MAX_SIGNALS,
    MAX_TRIGGER,
    MAX_VALUES,
)
from agent.formats.up.row_chars import row_chars

WINDOW_ID_BYTES = 16
_CLOCK_QUALITIES = frozenset(int(quality) for quality in ClockQuality)

FindCatalogue = Callable[[bytes], Catalogue | None]


class UnknownFormat(Untrusted):
    """Raised for a body with a format that this release cannot read.  The reader must be updated."""


def no_catalogues(_: bytes) -> None:
    """Return None for every digest, for readers that keep no catalogues."""


def decode_window(body: bytes, find: FindCatalogue = no_catalogues) -> Window:
    """Return the window in the body of a batch.

    `find` is called with the digest of a catalogue, and returns the catalogue, or None if it is missing.

    Raises: UnknownCatalogue if the catalogue of the batch is missing; Untrusted if the body is malformed
    or exceeds the limits.
    """
    return decode_batch(body, find)[0]


def decode_batch(body: bytes, find: FindCatalogue = no_catalogues) -> tuple[Window, Catalogue | None]:
    """Return the window in the body of a batch, and the catalogue that the batch carries (None if it carries none).

    `find` and the errors are the same as for `decode_window`.
    """
    message = pb.TelemetryBatch()
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size > MAX_BODY_BYTES:  # zstd returns the largest number if the size is unknown
            raise Untrusted(f"The body of the batch has {size} bytes, which exceeds {MAX_BODY_BYTES}.")
        message.ParseFromString(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))
        if message.format != FORMAT:
            raise UnknownFormat(
                f"The batch has format {message.format}, and this receiver reads format {FORMAT}: update the receiver."
            )
        _check_labels_and_events(message)
        carried = read_catalogue(message.carried) if message.carried else None
        catalogue = _find(message.catalogue, find)
        return _window(message, catalogue, _read_groups(message, catalogue)), carried
    except zstandard.ZstdError as error:
        raise Untrusted(f"The batch cannot be decompressed: {error}") from error
    except DecodeError as error:
        raise Untrusted("The batch is not a protobuf TelemetryBatch.") from error
    except delta.MalformedError as error:
        raise Untrusted(f"The batch is malformed: {error}") from error


def _window(message: pb.TelemetryBatch, catalogue: Catalogue | None, groups: tuple[ColumnGroup, ...]) -> Window:
    clock = message.clock
    # A clock quality that a later release adds is read as the worst quality.  The quality only says how far to trust
    # the times, so the samples stay readable.
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
        _read_window_id(message.window),
    )


def _read_window_id(id_: bytes) -> str:
    """Return the id of a window as hex digits.  Raises: delta.MalformedError if the id has a wrong length."""
    if len(id_) not in (0, WINDOW_ID_BYTES):
        raise delta.MalformedError(f"the id of its window does not have {WINDOW_ID_BYTES} bytes")
    return id_.hex()


def _find(digest: bytes, find: FindCatalogue) -> Catalogue | None:
    """Return the catalogue with this `digest`, or None if the digest is empty.

    Raises: UnknownCatalogue if `find` returns None; delta.MalformedError if the digest has a wrong length.
    """
    if not digest:
        return None
    if len(digest) != DIGEST_BYTES:
        raise delta.MalformedError(f"the digest of its catalogue does not have {DIGEST_BYTES} bytes")
    catalogue = find(digest)
    if catalogue is None:
        raise UnknownCatalogue(digest)
    return catalogue


def _read_groups(message: pb.TelemetryBatch, catalogue: Catalogue | None) -> tuple[ColumnGroup, ...]:
    """Return all column groups of a batch.  Raises: delta.MalformedError if the batch contradicts itself."""
    columns = message.columns
    _check_lengths(columns)
    sizes, time_of = list(columns.sizes), list(columns.times) or list(range(len(columns.sizes)))
    senders = list(columns.senders) or [0] * len(sizes)
    triggers = list(columns.triggers) or [0] * len(sizes)
    _check_counts(columns, sizes, time_of, senders)
    _check_triggers(triggers, len(sizes))
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
    for size, time, sender, trigger in zip(sizes, time_of, senders, triggers, strict=True):
        count = columns.counts[time]
        raw = values[start : start + size * count].reshape(size, count)
        chosen = signals[first : first + size]
        t_us = times[time_starts[time] : time_starts[time] + count]
        source_address = sender - 1 if sender else None
        infos, tables = tuple(signal for signal, _ in chosen), tuple(table for _, table in chosen)
        groups.append(ColumnGroup(t_us, infos, raw, tables, source_address, trigger=trigger or None))
        first, start = first + size, start + size * count
    if row_chars(groups) > MAX_ROW_CHARS:
        raise delta.MalformedError(f"the text columns of its samples have more than {MAX_ROW_CHARS} characters")
    return tuple(groups)


def _check_labels_and_events(message: pb.TelemetryBatch) -> None:
    """Check what stands outside of the columns.  Raises: delta.MalformedError."""
    if len(message.events) > MAX_EVENTS:
        raise delta.MalformedError(f"it has more than {MAX_EVENTS} events")
    if any(len(event.fields) > MAX_EVENT_FIELDS for event in message.events):
        raise delta.MalformedError(f"an event has more than {MAX_EVENT_FIELDS} fields")
    labels = [message.campaign, message.revision, message.clock.boot_id]
    labels += [event.kind for event in message.events]
    labels += [field.name for event in message.events for field in event.fields]
    if any(len(label) > MAX_LABEL_CHARS for label in labels):
        raise delta.MalformedError(
            f"a campaign, a revision, a kind of event or a name of a field has more than {MAX_LABEL_CHARS} characters"
        )


def _check_lengths(columns: pb.Columns) -> None:
    """Check the length of every list of `columns`.  Raises: delta.MalformedError."""
    groups = (columns.sizes, columns.times, columns.senders, columns.triggers)
    lists = (*groups, columns.signals, columns.counts, columns.unwrapped)
    deltas = (columns.time.bases, columns.time.steps, columns.value.bases, columns.value.steps)
    if any(len(each) > MAX_SIGNALS for each in (*lists, *deltas)):
        raise delta.MalformedError(f"it has more than {MAX_SIGNALS} groups or columns")


def _check_counts(columns: pb.Columns, sizes: Sequence[int], time_of: Sequence[int], senders: Sequence[int]) -> None:
    """Check the counts that decide how much memory is allocated.  Raises: delta.MalformedError."""
    counts = columns.counts
    if not len(sizes) == len(time_of) == len(senders):
        raise delta.MalformedError("the numbers of groups, of their times and of their senders differ")
    if any(sender > MAX_SENDERS for sender in senders):
        raise delta.MalformedError("a source address does not fit into one byte")
    if any(time >= len(counts) for time in time_of):
        raise delta.MalformedError("a group refers to a time column that does not exist")
    if 0 in sizes:
        raise delta.MalformedError("a group has no signals")
    if sum(sizes) != len(columns.value.bases):
        raise delta.MalformedError("the number of signals in all groups is not the number of value columns")
    if any(place >= sum(sizes) for place in columns.unwrapped):
        raise delta.MalformedError("`unwrapped` refers to a value column that does not exist")
    values = sum(counts[time] * size for time, size in zip(time_of, sizes, strict=True))
    if values + sum(counts) > MAX_VALUES:
        raise delta.MalformedError(f"it has more than {MAX_VALUES} values")


def _check_triggers(triggers: Sequence[int], groups: int) -> None:
    """Check the numbers of triggers.  Raises: delta.MalformedError."""
    if len(triggers) != groups:
        raise delta.MalformedError("the numbers of groups and of their triggers differ")
    if any(trigger > MAX_TRIGGER for trigger in triggers):
        raise delta.MalformedError(f"the number of a trigger is above {MAX_TRIGGER}")


def _numbers(columns: pb.Columns, entries: int) -> list[int]:
    """Return, for each value column, the number of the description of its signal.

    Raises: delta.MalformedError if a number is missing, or is not between 0 and `entries` - 1.
    """
    count = len(columns.value.bases)
    numbers = np.arange(count)
    if columns.signals:
        numbers = np.cumsum(np.array(columns.signals, np.int64) + 1) - 1
    if len(numbers) != count:
        raise delta.MalformedError("the number of signals in `signals` is not the number of value columns")
    if ((numbers < 0) | (numbers >= entries)).any():
        raise delta.MalformedError("a signal has no description")
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
    assert which is not None  # the caller skips values of an unknown type
    value: EventValue = getattr(field, which)
    return value
