"""Decodes frames to rows with cantools, frame by frame; the agent's decoder has no part in it."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cantools.database.can import Database, Message, Signal

from lab.demo.oracle_signals import raw_values
from tests.conditions.machine import Row

# The agent keeps raw values as int64, so the bit pattern of a double has a sign.
_FLOATS = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<q")}


Samples = tuple[tuple[str, int, float], ...]


class Frame(NamedTuple):
    t_us: int
    bus: str
    can_id: int
    extended: bool
    data: bytes


@dataclass(frozen=True)
class Bus:
    """The databases of one bus; the first one that has an identifier defines its message."""

    databases: tuple[Database, ...]
    by_pgn: bool

    def messages(self) -> Iterator[Message]:
        for database in self.databases:
            yield from database.messages

    def key(self, can_id: int, extended: bool) -> tuple[str, int]:
        if not extended:
            return "standard", can_id
        if not self.by_pgn:
            return "extended", can_id
        pgn = (can_id >> 8) & 0x3FFFF
        # SAE J1939-21: with a PDU format below 240, the low byte is the destination.
        return "pgn", pgn & 0x3FF00 if (pgn >> 8) & 0xFF < 240 else pgn


class Rows:
    """Finds and decodes the messages of frames."""

    def __init__(self, buses: Mapping[str, Bus]) -> None:
        self._buses = buses
        self._messages: dict[tuple[str, tuple[str, int]], Message] = {}
        self._decoded: dict[tuple[int, bytes], Samples | None] = {}
        for name, bus in buses.items():
            for message in bus.messages():
                self._messages.setdefault((name, bus.key(message.frame_id, message.is_extended_frame)), message)

    def known(self) -> set[str]:
        """Return the `Message.Signal` of all databases."""
        return {f"{m.name}.{signal.name}" for m in self._messages.values() for signal in m.signals}

    def messages(self) -> Iterator[tuple[str, Message]]:
        """Yield each bus and message."""
        for (bus, _), message in self._messages.items():
            yield bus, message

    def decode(self, frames: Iterable[Frame]) -> Iterator[Row]:
        for frame in frames:
            if (row := self.row(frame)) is not None:
                yield row

    def row(self, frame: Frame) -> Row | None:
        """Return the decoded frame, or None if no database has its message or it is too short."""
        bus = self._buses.get(frame.bus)
        message = None if bus is None else self._messages.get((frame.bus, bus.key(frame.can_id, frame.extended)))
        if bus is None or message is None:
            return None
        samples = self._samples(message, frame.data)
        if samples is None:
            return None
        sender = frame.can_id & 0xFF if bus.by_pgn and frame.extended else None
        return Row(frame.t_us, frame.bus, message.name, sender, samples)

    def _samples(self, message: Message, data: bytes) -> Samples | None:
        key = (id(message), data)  # this object keeps the messages, so that no two share an identity
        if key not in self._decoded:  # random drives repeat few contents
            raws = raw_values(message, data)
            signals = {signal.name: signal for signal in message.signals}
            self._decoded[key] = (
                None
                if raws is None
                else tuple((name, _bits(signals[name], raw), _value(signals[name], raw)) for name, raw in raws.items())
            )
        return self._decoded[key]


def _value(signal: Signal, raw: float) -> float:
    return float(raw) * float(signal.scale) + float(signal.offset)


def _bits(signal: Signal, raw: float) -> int:
    """Return the raw integer, which of an IEEE float is its bit pattern."""
    if not signal.is_float:
        return int(raw)
    number, pattern = _FLOATS[signal.length]
    bits: int = struct.unpack(pattern, struct.pack(number, raw))[0]
    return bits
