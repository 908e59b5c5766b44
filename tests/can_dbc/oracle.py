"""Decodes single frames with cantools, and gives the samples in a form that compares with our decoder's."""

import struct
from dataclasses import dataclass

import cantools.database
import numpy as np
from cantools.database.can import Message, Signal
from cantools.database.errors import DecodeError
from cantools.database.namedsignalvalue import NamedSignalValue

from can_dbc.decoder import SignalColumns
from can_dbc.frames import EXTENDED, FD, FrameBlock
from can_dbc.plan import SignalPlan
from can_dbc.values import Kind, physical, text_keys
from lab.demo.oracle_signals import fits, is_selected, raw_value


@dataclass(frozen=True)
class Sample:
    """One sample of a signal.  `value` holds float64 bits, so that -0.0 differs from 0.0 and NaN equals NaN."""

    name: str
    raw: int | None
    value: int
    text: str | None


def block_of(frames: list[tuple[int, bool, bytes]], bus: int = 0, buses: tuple[str, ...] = ("can0",)) -> FrameBlock:
    """Return a block of frames, given as (identifier, extended, data), 1 ms apart."""
    width = 8 if all(len(data) <= 8 for _, _, data in frames) else 64
    flags = [(EXTENDED if extended else 0) | (FD if len(data) > 8 else 0) for _, extended, data in frames]
    return FrameBlock(
        np.arange(len(frames), dtype=np.int64) * 1_000_000,
        np.full(len(frames), bus, np.uint8),
        np.array([can_id for can_id, _, _ in frames], np.uint32),
        np.array(flags, np.uint8),
        np.array([len(data) for _, _, data in frames], np.uint8),
        np.frombuffer(b"".join(d.ljust(width, b"\0") for _, _, d in frames), np.uint8).reshape(-1, width),
        buses,
    )


def bits(value: float) -> int:
    """Return the bit pattern of a float64.  All NaN share one pattern."""
    return -1 if value != value else struct.unpack("<q", struct.pack("<d", value))[0]


class CantoolsCrash(Exception):
    """cantools raised an undocumented error, because it looks up NaN or infinity in a value table."""


def messages_of(text: str) -> list[Message]:
    """Load the DBC `text` with cantools, and repair its multiplexers of long names.

    cantools calls a multiplexer by its short name, but the signal itself by its long name (SystemSignalLongSymbol), so
    that it never finds the multiplexer: https://github.com/cantools/cantools/issues/69 is about such names.
    """
    database = cantools.database.load_string(text, "dbc", strict=False)
    for message in database.messages:
        names = {signal.name for signal in message.signals}
        for signal in message.signals:
            if signal.multiplexer_signal is not None and signal.multiplexer_signal not in names:
                (signal.multiplexer_signal,) = (one.name for one in message.signals if one.is_multiplexer)
    return database.messages


def expected(message: Message, data: bytes) -> list[Sample] | None:
    """Return the samples of `data` in the order of `message.signals`, or None if the data is too short.

    cantools decodes each signal by itself.  As a whole, it would refuse a message for one signal that overlaps another
    one or exceeds the message, or for a multiplexer number that nothing has.
    """
    if len(data) < message.length:
        return None
    samples = []
    whole = _as_a_whole(message, data)
    for signal in message.signals:
        if not fits(signal, message.length) or not is_selected(message, signal, data):
            continue
        if any(sample.name == signal.name for sample in samples):
            continue  # Of two signals with one name in one frame, the first is decoded.
        raw = whole[signal.name] if signal.name in whole else raw_value(message, signal, data)
        try:
            text = signal.conversion.raw_to_scaled(raw, decode_choices=True)
        except (ValueError, OverflowError) as error:
            raise CantoolsCrash(data.hex()) from error
        value = signal.conversion.raw_to_scaled(raw, decode_choices=False)
        samples.append(
            Sample(
                signal.name,
                raw if isinstance(raw, int) else None,
                bits(_in_float64(signal, raw, value)),
                str(text) if isinstance(text, (NamedSignalValue, str)) else None,
            )
        )
    return samples


def _as_a_whole(message: Message, data: bytes) -> dict[str, int | float]:
    """Return the raw values that cantools decodes at once, which is faster than one by one, or nothing if it cannot."""
    if message.is_multiplexed() or len({signal.name for signal in message.signals}) < len(message.signals):
        return {}
    try:
        return message.decode(data, decode_choices=False, scaling=False)
    except DecodeError:
        return {}


def _in_float64(signal: Signal, raw: float, value: float) -> float:
    """Return the value of cantools as our decoder computes it, in float64.

    cantools multiplies integers exactly.  So its value differs beyond 2^53, and its zero has no sign.
    """
    scale, offset = signal.conversion.scale, signal.conversion.offset
    in_integers = isinstance(scale, int) or (float(scale).is_integer() and float(offset).is_integer())
    if isinstance(raw, int) and in_integers and not 0 < abs(raw * int(scale)) <= 2**53:
        return float(raw) * float(scale) + float(offset)
    return float(value)


def decoded(columns: SignalColumns) -> dict[int, list[Sample]]:
    """Return our samples by row of the block, in the order of the message's signals."""
    by_row: dict[int, list[Sample]] = {int(row): [] for row in columns.rows}
    for position, index in enumerate(columns.signals):
        signal, raw = columns.message.signals[index], columns.raw[position]
        values, keys = physical(signal, raw), text_keys(signal, raw)
        for frame, row in enumerate(columns.rows.tolist()):
            if columns.valid is None or columns.valid[position, frame]:
                text = signal.texts.get(int(keys[frame]))
                by_row[row].append(Sample(signal.name, _exact(signal, raw[frame]), bits(values[frame]), text))
    return by_row


def _exact(signal: SignalPlan, raw: np.int64) -> int | None:
    if signal.kind is Kind.INT:
        return int(raw)
    return int(raw.view(np.uint64)) if signal.kind is Kind.UINT else None
