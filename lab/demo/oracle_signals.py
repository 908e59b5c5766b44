"""Decodes single signals with cantools, for frames that cantools does not decode as a whole.  Pure.

cantools refuses a whole frame if two signals of its message overlap, if one exceeds the message, or if a multiplexer
has a number that the database does not list.  The agent leaves out only what cannot be decoded.
"""

import re
from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Final

from cantools.database import DecodeError
from cantools.database.can import Message, Signal
from cantools.database.namedsignalvalue import NamedSignalValue

_BLOCK: Final = re.MULTILINE | re.DOTALL
_SIGNAL: Final = re.compile(r"^ *SG_ +(\w+)[^:\n]*: *(\d+)\|(\d+)@", re.MULTILINE)


def raw_values(message: Message, data: bytes) -> Mapping[str, int | float] | None:
    """Return the raw values of a frame by the names of the signals, or None if the frame is too short."""
    if len(data) < message.length:
        return None
    try:
        whole = message.decode_simple(data, decode_choices=False, scaling=False)
    except DecodeError:
        whole = None
    if whole is not None:
        return {name: value for name, value in whole.items() if isinstance(value, int | float)}
    found: dict[str, int | float] = {}
    for signal in message.signals:
        if signal.name not in found and fits(signal, message.length) and is_selected(message, signal, data):
            found[signal.name] = raw_value(message, signal, data)
    return found


def repair_long_names(message: Message) -> None:
    """Let signals name their multiplexer by its long name (SystemSignalLongSymbol).

    cantools names it by its short name, and then finds no signal of this name.
    """
    names = {signal.name for signal in message.signals}
    multiplexers = [signal.name for signal in message.signals if signal.is_multiplexer]
    for signal in message.signals:
        if signal.multiplexer_signal is not None and signal.multiplexer_signal not in names and len(multiplexers) == 1:
            signal.multiplexer_signal = multiplexers[0]
    message.refresh(strict=False)


def keep_short_names(message: Message, text: str) -> None:
    """Give signals of one name the short names that they have in `text`, if `text` is a DBC.

    cantools gives a long name to every signal that has its short name.  It is not clear which of them is meant, so the
    agent gives it to none.
    """
    names = [signal.name for signal in message.signals]
    if len(set(names)) == len(names):
        return
    found = re.search(rf"^BO_ {message.frame_id | message.is_extended_frame << 31} .*?(?=^BO_ |\Z)", text, _BLOCK)
    places = _SIGNAL.findall(found[0]) if found else []
    short = {(int(start), int(length)): name for name, start, length in places}
    for signal in message.signals:
        if names.count(signal.name) > 1:
            signal.name = short.get((signal.start, signal.length), signal.name)
    message.refresh(strict=False)


def fits(signal: Signal, length_bytes: int) -> bool:
    """Return whether a message of `length_bytes` holds the whole signal."""
    first = signal.start
    if signal.byte_order == "big_endian":
        first += 7 - 2 * (signal.start % 8)
    return first + signal.length <= 8 * length_bytes


def raw_value(message: Message, signal: Signal, data: bytes) -> int | float:
    """Return the raw value of one signal in a frame, whatever the other signals of `message` are."""
    (value,) = _alone(signal, message.length).decode_simple(data, decode_choices=False, scaling=False).values()
    assert isinstance(value, int | float)
    return value


@cache
def _alone(signal: Signal, length: int) -> Message:
    only = copy(signal)
    only.is_multiplexer, only.multiplexer_signal, only.multiplexer_ids = False, None, None
    return Message(0, "Alone", length, [only], strict=False)


def is_selected(message: Message, signal: Signal, data: bytes) -> bool:
    """Return whether the multiplexers in a frame select the signal."""
    if signal.multiplexer_signal is None:
        return True
    above = [one for one in message.signals if one.is_multiplexer and one.name == signal.multiplexer_signal]
    if not above or not fits(above[0], message.length) or not is_selected(message, above[0], data):
        return False
    conversion = above[0].conversion
    shown = conversion.raw_to_scaled(raw_value(message, above[0], data), decode_choices=True)
    if isinstance(shown, NamedSignalValue | str):
        shown = conversion.choice_to_number(shown)
    return int(shown) in (signal.multiplexer_ids or ())
