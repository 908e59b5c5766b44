"""Defines the bit plan, which holds what a database says about each message, in plain values.

Pure.  `can_dbc.compile` makes plans from cantools' objects, once for each set of databases.  A plan holds no cantools
object and no array, so it can be compared, cached and sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.values import WORD_BITS, Kind

EXTENDED_KEY: Final = 1 << 31
# J1939-21: if the PDU format is below 240, the next byte is a destination address.  Otherwise the next byte belongs to
# the parameter group.
_PDU1_MASK: Final = 0x03FF0000
_PDU2_MASK: Final = 0x03FFFF00
_PDU2_FIRST: Final = 240
HEADER_IDS: Final = 1 << 24  # AUTOSAR's short header has 3 bytes for the id and 1 byte for the length.


class Match(StrEnum):
    """Says how the identifier of a frame is matched with the identifiers of messages."""

    EXACT = "exact"
    PGN = "pgn"


def first_bit(start: int, *, big_endian: bool) -> int:
    """Return how many bits lie before the signal with the DBC start bit `start` (see SignalPlan.first_bit)."""
    # A DBC numbers the bits of a byte from the least significant bit.  Network order starts at the most significant
    # bit.
    return 8 * (start // 8) + 7 - start % 8 if big_endian else start


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """Describes one signal of a message.

    `start` is the DBC start bit: the least significant bit of a little-endian signal, or the most significant bit of a
    big-endian signal.  `bits` is the length.  The physical value is raw * scale + offset in float64.  `texts` is the
    value table by raw value (int64).  An IEEE float is looked up by its whole part, as in cantools.  `minimum` and
    `maximum` are the limits of the physical value in the database, or None.  The decoder ignores them.

    `multiplexer` is the index, within the message, of the signal that selects this signal.  `multiplexer_ids`
    (ascending) are the multiplexer numbers that select it.  If `multiplexer` is None, this signal is always present.
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
    minimum: float | None = None
    maximum: float | None = None
    multiplexer: int | None = None
    multiplexer_ids: tuple[int, ...] = ()

    @property
    def first_bit(self) -> int:
        """Return the position of the signal's start bit in the data, as the number of bits before it.

        For a little-endian signal, the bits of a byte are counted from the least significant bit.  For a big-endian
        signal, they are counted from the most significant bit (network order).
        """
        return first_bit(self.start, big_endian=self.big_endian)


@dataclass(frozen=True, slots=True)
class MultiplexerPlan:
    """Describes a signal that selects other signals.

    `signal` is the index of the signal.  `numbers` (ascending) are the multiplexer numbers that the database lists.  A
    frame with another number holds none of the signals that this one selects.

    A raw value that is a key of `named` stands for the multiplexer number `named[raw]`.  Any other raw value stands for
    the integer part of raw * scale + offset, because cantools selects by the scaled value.  Integers are computed
    exactly.
    """

    signal: int
    numbers: tuple[int, ...]
    named: Mapping[int, int]
    scale: int | float
    offset: int | float

    @property
    def plain(self) -> bool:
        """Return whether each raw value is itself the multiplexer number."""
        return not self.named and self.scale == 1 and self.offset == 0


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """Describes one message, with its signals in cantools' order.

    A multiplexer comes before the multiplexers that it selects.  `length` is in bytes.  `defect` says why every frame
    of the message is refused, or is None.

    A container has `contained` messages instead of signals, and its `length` is the largest that a frame may have.  A
    contained message has the identifier of its container, and `header_id` marks its PDUs in a frame.
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
    """Holds the messages of one bus, and notes for the maintainer of the databases.

    The messages have distinct keys (`match_key`).
    """

    messages: tuple[MessagePlan, ...]
    match: Match
    notes: tuple[str, ...] = ()

    @property
    def with_contained(self) -> Iterator[MessagePlan]:
        """Yield each message, followed by the messages that it contains."""
        for message in self.messages:
            yield message
            yield from message.contained


def match_key(can_id: int, extended: bool, match: Match) -> int:
    """Return the key of a message on its bus.  A frame belongs to the message with the same key.

    The key is the identifier, with EXTENDED_KEY added if the identifier has 29 bits.  Match.PGN first reduces a 29-bit
    identifier to its parameter group (J1939-21), by clearing the priority and the source address.  In the PDU1
    format, the destination address is cleared as well.  J1939 has no 11-bit identifiers, so Match.PGN leaves an 11-bit
    identifier unchanged.
    """
    if not extended:
        return can_id
    if match is Match.PGN:
        pdu_format = can_id >> 16 & 0xFF
        can_id &= _PDU2_MASK if pdu_format >= _PDU2_FIRST else _PDU1_MASK
    return can_id | EXTENDED_KEY


def pgn_masked(can_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reduce 29-bit identifiers to their parameter groups, as `match_key` does, but without adding EXTENDED_KEY."""
    return can_id & np.where((can_id >> 16 & 0xFF) >= _PDU2_FIRST, _PDU2_MASK, _PDU1_MASK)


def as_raw(kind: Kind, bits: int, value: int) -> int | None:
    """Return `value` as a raw int64, or None if a signal of `kind` with `bits` bits cannot have this value."""
    if kind is Kind.UINT:
        if not 0 <= value < 1 << min(bits, WORD_BITS):
            return None
        return value - (1 << WORD_BITS) if value >> WORD_BITS - 1 else value
    limit = 1 << min(bits, WORD_BITS) - 1 if kind is Kind.INT else 1 << WORD_BITS - 2
    return value if -limit <= value < limit else None
