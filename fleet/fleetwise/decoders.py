"""Turns the CAN decoders of a manifest into messages and signals of a DBC, and finds names for them.  Pure.

A manifest has no messages, only the ids of messages.  A message is called `<Message>`, and its signals `<Signal>`, if
all its fully qualified names are `Vehicle.<Message>.<Signal>` and no other message of the bus has that name.  Campaigns
then find the signals by their fully qualified names without a mapping (`agent.telemetry.collect.names`).  Otherwise the
message is called after its id, `CAN_1A0`, its signals are called as the decoders call them, and a mapping leads from
the fully qualified names to them.

`startBit` of FleetWise is the place of the least significant bit, where bit n is bit n % 8 (0 is the least significant)
of byte n // 8.  A DBC has that place for little-endian signals, and for big-endian signals the place of the most
significant bit.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from fleet.fleetwise.fields import CanSignal

MAX_BYTES: Final = 64
"""The most data of a CAN FD frame."""
_MAX_11_BIT: Final = 0x7FF
_MAX_29_BIT: Final = 0x1FFF_FFFF
_ROOT: Final = "Vehicle"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class DecoderError(Exception):
    """Raised for a decoder that no DBC can describe; `field` is the field of `canSignal` at fault."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(what)
        self.field = field


class Decoder(msgspec.Struct, frozen=True):
    """A CAN decoder: the fully qualified name of its signal, and its layout."""

    fqn: str
    layout: CanSignal


class Signal(msgspec.Struct, frozen=True):
    """A signal of a DBC; `start` is its start bit as a DBC has it.  `bits` of a float are 32 or 64."""

    name: str
    fqn: str
    start: int
    bits: int
    big_endian: bool
    signed: bool
    floating: bool
    factor: float
    offset: float


class Message(msgspec.Struct, frozen=True):
    """A message of a DBC."""

    name: str
    can_id: int
    extended: bool
    size_bytes: int
    signals: tuple[Signal, ...]


def start_in_dbc(layout: CanSignal) -> int:
    """Return the start bit as a DBC has it.  Raises: DecoderError if the signal does not fit a frame."""
    start, bits = layout.start_bit, layout.length
    floating = layout.signal_value_type == "FLOATING_POINT"
    if floating and bits not in (32, 64):
        raise DecoderError("length", f"a floating-point signal has 32 or 64 bits, and this one has {bits}")
    if not 1 <= bits <= 64:
        raise DecoderError("length", f"a signal has 1 to 64 bits, and this one has {bits}")
    if layout.is_big_endian:
        # Counted in the order of transmission, where the most significant bit of a byte comes first.
        last = start // 8 * 8 + 7 - start % 8
        first = last - bits + 1
        if first < 0:
            raise DecoderError(
                "startBit",
                f"a big-endian signal of {bits} bits whose least significant bit is {start} would begin before the "
                "frame; startBit is not the start bit of a DBC",
            )
        start = first // 8 * 8 + 7 - first % 8
    else:
        last = start + bits - 1
    if last >= MAX_BYTES * 8:
        raise DecoderError("startBit", f"the signal ends behind byte {MAX_BYTES}, the last one of a CAN FD frame")
    return start


def messages_of(decoders: Sequence[Decoder]) -> tuple[Message, ...]:
    """Return the messages that the decoders of one bus describe, in the order of their ids.

    `check_layout` must have accepted each decoder.
    """
    of_id: dict[int, list[Decoder]] = {}
    for decoder in decoders:
        of_id.setdefault(decoder.layout.message_id, []).append(decoder)
    candidates = {message_id: _message_name(group) for message_id, group in of_id.items()}
    uses = Counter(candidates.values())
    messages = []
    for message_id, group in sorted(of_id.items()):
        name = candidates[message_id]
        if name is None or uses[name] > 1:
            names, name = _own_names(group), f"CAN_{message_id:X}"
        else:
            names = [decoder.fqn.split(".")[2] for decoder in group]
        signals = tuple(_signal(decoder, spelt) for decoder, spelt in zip(group, names, strict=True))
        size = max(_last_byte(signal) for signal in signals) + 1
        messages.append(Message(name, message_id, message_id > _MAX_11_BIT, size, signals))
    return tuple(messages)


def check_layout(layout: CanSignal) -> None:
    """Check that a frame can have such a signal, and a DBC can describe it.  Raises: DecoderError."""
    if layout.message_id > _MAX_29_BIT:
        raise DecoderError("messageId", f"{layout.message_id} is above {_MAX_29_BIT}, the greatest id of a frame")
    for field, value in (("factor", layout.factor), ("offset", layout.offset)):
        if not math.isfinite(value):
            raise DecoderError(field, "this is no finite number")
    start_in_dbc(layout)


def is_resolved(message: Message, signal: Signal) -> bool:
    """Return whether the fully qualified name leads to the signal without a mapping."""
    return signal.fqn == f"{_ROOT}.{message.name}.{signal.name}"


def _message_name(group: Sequence[Decoder]) -> str | None:
    """Return the name that all fully qualified names of a message agree on, or None."""
    found = set()
    for decoder in group:
        steps = decoder.fqn.split(".")
        if len(steps) != 3 or steps[0] != _ROOT or not all(map(_IDENTIFIER.match, steps)):
            return None
        found.add(steps[1])
    return found.pop() if len(found) == 1 else None


def _own_names(group: Sequence[Decoder]) -> list[str]:
    """Return a different name for each signal of a message: its own, the end of its path, or else its whole path."""
    names = [_identifier(decoder.layout.name or decoder.fqn.rpartition(".")[2]) for decoder in group]
    uses = Counter(names)
    return [
        name if uses[name] == 1 else _identifier(decoder.fqn.replace(".", "_"))
        for decoder, name in zip(group, names, strict=True)
    ]


def _identifier(text: str) -> str:
    spelt = re.sub(r"\W", "_", text, flags=re.ASCII)
    return spelt if _IDENTIFIER.match(spelt) else f"_{spelt}"


def _signal(decoder: Decoder, name: str) -> Signal:
    layout = decoder.layout
    return Signal(
        name,
        decoder.fqn,
        start_in_dbc(layout),
        layout.length,
        layout.is_big_endian,
        layout.is_signed,
        layout.signal_value_type == "FLOATING_POINT",
        layout.factor,
        layout.offset,
    )


def _last_byte(signal: Signal) -> int:
    if signal.big_endian:
        first = signal.start // 8 * 8 + 7 - signal.start % 8
        return (first + signal.bits - 1) // 8
    return (signal.start + signal.bits - 1) // 8
