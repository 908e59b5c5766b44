"""The bit plan: what a database says about each message, in plain values, compiled once from cantools' objects.

Pure.  A plan holds no cantools object and no array, so it can be compared, cached and sent.  `can_dbc.compile` makes
plans.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.values import WORD_BITS, Kind

EXTENDED_KEY: Final = 1 << 31
# J1939-21: below PDU format 240 the next byte is a destination address, from 240 on it belongs to the parameter group.
_PDU1_MASK: Final = 0x03FF0000
_PDU2_MASK: Final = 0x03FFFF00
_PDU2_FIRST: Final = 240
HEADER_IDS: Final = 1 << 24  # AUTOSAR's short header: 3 bytes of id, 1 of length


class Match(StrEnum):
    """How a frame's identifier finds its message."""

    EXACT = "exact"
    PGN = "pgn"


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """One signal of a message.

    `start` is the DBC start bit: the least significant bit of a little-endian signal, the most significant bit of a
    big-endian one.  `bits` is the length.  The physical value is raw * scale + offset in float64.  `texts` is the value
    table, by raw value as int64 (for IEEE floats by the value without its fraction, as cantools looks it up).
    `multiplexer` is the index, within the message, of the signal that selects this one by one of `multiplexer_ids`
    (ascending); None means that this signal is always present.
    """

    name: str
    unit: str | None
    kind: Kind
    bits: int
    start: int
    big_endian: bool
    scale: float
    offset: float
    texts: Mapping[int, str]
    multiplexer: int | None = None
    multiplexer_ids: tuple[int, ...] = ()

    @property
    def first_bit(self) -> int:
        """Return the position of the first bit, in network order or, of a little-endian signal, in DBC order."""
        # A DBC numbers the bits of a byte from the least significant one; network order begins with the other end.
        return 8 * (self.start // 8) + 7 - self.start % 8 if self.big_endian else self.start


@dataclass(frozen=True, slots=True)
class MultiplexerPlan:
    """A signal that selects others.

    `numbers` (ascending) are the multiplexer numbers that the database lists; a frame with another number is refused.
    `broken` are the numbers whose group of signals overlaps or exceeds the message.  The number of a raw value is
    `named[raw]` if listed there, else the whole part of raw * scale + offset (integers stay exact), because cantools
    selects by the scaled value.
    """

    signal: int
    numbers: tuple[int, ...]
    broken: frozenset[int]
    named: Mapping[int, int]
    scale: int | float
    offset: int | float

    @property
    def plain(self) -> bool:
        """Return whether the raw value is the number itself."""
        return not self.named and self.scale == 1 and self.offset == 0


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """One message: its signals in cantools' order, and its multiplexers, selecting ones before selected ones.

    `length` is in bytes.  `defect` says why every frame of the message is refused, or is None.  A container has
    `contained` messages in place of signals, and its `length` is the most that a frame may have.  A contained message
    has the identifier of the container, and the `header_id` by which it is found in a frame.
    """

    name: str
    can_id: int
    extended: bool
    length: int
    signals: tuple[SignalPlan, ...]
    multiplexers: tuple[MultiplexerPlan, ...] = ()
    defect: str | None = None
    header_id: int | None = None
    contained: "tuple[MessagePlan, ...]" = ()


@dataclass(frozen=True, slots=True)
class BusPlan:
    """The messages of one bus, one for each key (`match_key`), and notes for the maintainer of the databases."""

    messages: tuple[MessagePlan, ...]
    match: Match
    notes: tuple[str, ...] = ()

    @property
    def with_contained(self) -> Iterator[MessagePlan]:
        """Yield the messages, each followed by those that it contains: everything that samples are named by."""
        for message in self.messages:
            yield message
            yield from message.contained


def match_key(can_id: int, extended: bool, match: Match) -> int:
    """Return what identifies a message on a bus: its identifier and the type of that, or its parameter group.

    Match.PGN compares the parameter group of 29-bit identifiers (J1939-21): priority and source address do not count,
    nor does the destination address of PDU1 formats.  J1939 has no 11-bit identifiers; they are compared whole.
    """
    if not extended:
        return can_id
    if match is Match.PGN:
        pdu_format = can_id >> 16 & 0xFF
        can_id &= _PDU2_MASK if pdu_format >= _PDU2_FIRST else _PDU1_MASK
    return can_id | EXTENDED_KEY


def pgn_masked(can_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `match_key` of many 29-bit identifiers for Match.PGN, without EXTENDED_KEY."""
    return can_id & np.where((can_id >> 16 & 0xFF) >= _PDU2_FIRST, _PDU2_MASK, _PDU1_MASK)


def as_raw(kind: Kind, bits: int, value: int) -> int | None:
    """Return `value` as a raw int64 of a signal of `kind` and `bits`, or None if the signal never has it."""
    if kind is Kind.UINT:
        if not 0 <= value < 1 << min(bits, WORD_BITS):
            return None
        return value - (1 << WORD_BITS) if value >> WORD_BITS - 1 else value
    limit = 1 << min(bits, WORD_BITS) - 1 if kind is Kind.INT else 1 << WORD_BITS - 2
    return value if -limit <= value < limit else None
