"""Decodes single signals with cantools, for frames that cantools does not decode as a whole.  Pure.

cantools refuses a whole frame if two signals of its message overlap, if one exceeds the message, or if a multiplexer
has a number that the database does not list.  The agent leaves out only what cannot be decoded.
"""

from collections.abc import Mapping
from copy import copy
from functools import cache

from cantools.database import DecodeError
from cantools.database.can import Message, Signal
from cantools.database.namedsignalvalue import NamedSignalValue


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
        if signal.name not in found and _fits(signal, message.length) and _is_selected(message, signal, data):
            found[signal.name] = _raw(message, signal, data)
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


def _fits(signal: Signal, length_bytes: int) -> bool:
    first = signal.start
    if signal.byte_order == "big_endian":
        first += 7 - 2 * (signal.start % 8)
    return first + signal.length <= 8 * length_bytes


def _raw(message: Message, signal: Signal, data: bytes) -> int | float:
    (value,) = _alone(signal, message.length).decode_simple(data, decode_choices=False, scaling=False).values()
    assert isinstance(value, int | float)
    return value


@cache
def _alone(signal: Signal, length: int) -> Message:
    only = copy(signal)
    only.is_multiplexer, only.multiplexer_signal, only.multiplexer_ids = False, None, None
    return Message(0, "Alone", length, [only], strict=False)


def _is_selected(message: Message, signal: Signal, data: bytes) -> bool:
    if signal.multiplexer_signal is None:
        return True
    above = [one for one in message.signals if one.is_multiplexer and one.name == signal.multiplexer_signal]
    if not above or not _fits(above[0], message.length) or not _is_selected(message, above[0], data):
        return False
    conversion = above[0].conversion
    shown = conversion.raw_to_scaled(_raw(message, above[0], data), decode_choices=True)
    if isinstance(shown, NamedSignalValue | str):
        shown = conversion.choice_to_number(shown)
    return int(shown) in (signal.multiplexer_ids or ())
