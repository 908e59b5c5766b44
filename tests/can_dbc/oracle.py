"""Decodes single frames with cantools, and gives the samples in a form that compares with our decoder's."""

import struct
from copy import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
from cantools.database.can import Message, Signal
from cantools.database.errors import DecodeError
from cantools.database.namedsignalvalue import NamedSignalValue

from can_dbc.decoder import SignalColumns
from can_dbc.frames import EXTENDED, FD, FrameBlock
from can_dbc.plan import SignalPlan
from can_dbc.values import Kind, physical, text_keys


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


def expected(message: Message, data: bytes) -> list[Sample] | None:
    """Return the samples that cantools decodes, in the order of `message.signals`, or None if it refuses the data."""
    try:
        shown = message.decode(data)
    except DecodeError:
        return None
    except (ValueError, OverflowError) as error:
        raise CantoolsCrash(data.hex()) from error
    if message.is_multiplexed():  # without scaling or texts cantools would select differently
        raws, values = {}, {}
        for signal in message.signals:
            if signal.name in shown:
                (raws[signal.name],) = _alone(signal, message.length).decode(data, False, scaling=False).values()
                values[signal.name] = signal.conversion.raw_to_scaled(raws[signal.name], decode_choices=False)
    else:
        raws = message.decode(data, decode_choices=False, scaling=False)
        values = message.decode(data, decode_choices=False)
    samples = []
    for name in (name for name in dict.fromkeys(signal.name for signal in message.signals) if name in shown):
        text = shown[name]
        raw = raws[name]
        samples.append(
            Sample(
                name,
                raw if isinstance(raw, int) else None,
                bits(_in_float64(message, name, raw, values[name])),
                str(text) if isinstance(text, (NamedSignalValue, str)) else None,
            )
        )
    return samples


@cache
def _alone(signal: Signal, length: int) -> Message:
    """Return a message that has only this signal."""
    only = copy(signal)
    only.is_multiplexer, only.multiplexer_signal, only.multiplexer_ids = False, None, None
    return Message(0, "Alone", length, [only], strict=False)


def _in_float64(message: Message, name: str, raw: float, value: float) -> float:
    """Return the value of cantools as our decoder computes it, in float64.

    cantools multiplies integers exactly.  So its value differs beyond 2^53, and its zero has no sign.
    """
    conversion = [s for s in message.signals if s.name == name][-1].conversion
    scale, offset = conversion.scale, conversion.offset
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
