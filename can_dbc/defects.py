"""Finds the signals of a message that have no values, or share their name with another signal.  Pure.

Only such a signal is lost.  The other signals of its message are decoded, because each says where its own bits are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from can_dbc.plan import first_bit
from can_dbc.values import FLOAT_OF_BITS, WORD_BITS

if TYPE_CHECKING:
    from cantools.database import can

    from can_dbc.description import Message, Signal

    AnyMessage = Message | can.Message
    AnySignal = Signal | can.Signal


def usable(message: "AnyMessage", notes: list[str]) -> "list[AnySignal]":
    """Return the signals of `message` that can be decoded under their own names, and add the others to `notes`."""
    sound: list[AnySignal] = []
    for signal in message.signals:
        if (reason := _unusable(signal, message.length)) is None:
            sound.append(signal)
        else:
            notes.append(
                f"{place_of(signal)}{message.name}.{signal.name}: {reason}, so the signal is left out; correct it in "
                "the database"
            )
    return _distinct(message.name, sound, notes)


def place_of(described: object) -> str:
    """Return the file and line of a message or signal, as the beginning of a note, or "" if they are not known."""
    place = getattr(described, "place", "")
    return f"{place}: " if place else ""


def _unusable(signal: "AnySignal", length_bytes: int) -> str | None:
    """Return why the signal has no values, or None if it has values."""
    conversion, bits = signal.conversion, signal.length
    if not 1 <= bits <= WORD_BITS:
        return f"the signal has {bits} bits, and only 1 to {WORD_BITS} can be decoded"
    if conversion.is_float and bits not in FLOAT_OF_BITS:
        return f"the signal is an IEEE float of {bits} bits, which has no meaning; use 16, 32 or 64 bits"
    if signal.start < 0:
        return f"the signal starts at bit {signal.start}"
    big_endian = signal.byte_order == "big_endian"
    if first_bit(signal.start, big_endian=big_endian) + bits > 8 * length_bytes:
        return f"the signal exceeds the message of {length_bytes} bytes"
    try:
        finite = math.isfinite(conversion.scale) and math.isfinite(conversion.offset)
    except OverflowError:
        finite = False
    return None if finite else "the scale or offset exceeds float64"


def _distinct(message: str, signals: "Sequence[AnySignal]", notes: list[str]) -> "list[AnySignal]":
    """Return `signals` without those that can be in the same frame as an earlier signal of the same name."""
    kept: list[AnySignal] = []
    of_name: dict[str, list[AnySignal]] = {}
    parents: dict[str, AnySignal] = {}
    for signal in signals:
        if signal.is_multiplexer:
            parents.setdefault(signal.name, signal)
    for signal in signals:
        same = of_name.setdefault(signal.name, [])
        if all(_exclude(signal, other, parents) for other in same):
            same.append(signal)
            kept.append(signal)
        else:
            notes.append(
                f"{place_of(signal)}{message}.{signal.name}: another signal of the message has the same name, so the "
                f"signal at bit {signal.start} is left out; give each signal its own name"
            )
    return kept


def _exclude(one: "AnySignal", other: "AnySignal", parents: "Mapping[str, AnySignal]") -> bool:
    """Return whether no frame holds both signals, because one multiplexer selects them by different numbers."""
    numbers_of = _conditions(one, parents)
    return any(
        name in numbers_of and numbers_of[name].isdisjoint(numbers)
        for name, numbers in _conditions(other, parents).items()
    )


def _conditions(signal: "AnySignal | None", parents: "Mapping[str, AnySignal]") -> dict[str, frozenset[int]]:
    """Return the numbers that a frame must have for `signal`, by the names of the multiplexers above it."""
    found: dict[str, frozenset[int]] = {}
    while signal is not None and signal.multiplexer_signal is not None and signal.multiplexer_signal not in found:
        found[signal.multiplexer_signal] = frozenset(signal.multiplexer_ids or ())
        signal = parents.get(signal.multiplexer_signal)
    return found
