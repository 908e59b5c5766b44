"""Defines what a reader of a database gives to the compiler: messages and signals in plain values.  Pure.

The reader of DBC files (`can_dbc.dbc_reader`) makes these objects.  For the other formats the compiler takes the
objects of cantools, which have attributes of the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """Says how a raw value becomes a physical value: raw * scale + offset, and a text for some raw values."""

    scale: int | float
    offset: int | float
    is_float: bool
    choices: Mapping[int, str] | None


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """Describes one signal.

    `start` is the start bit in the numbering of DBC files, and `length` is in bits.  `multiplexer_signal` is the name
    of the signal that selects this one, by the numbers `multiplexer_ids`.  `minimum` and `maximum` limit the physical
    value, or are None.  `place` names file and line.
    """

    name: str
    start: int
    length: int
    byte_order: Literal["little_endian", "big_endian"]
    is_signed: bool
    unit: str | None
    conversion: Conversion
    minimum: float | None = None
    maximum: float | None = None
    is_multiplexer: bool = False
    multiplexer_signal: str | None = None
    multiplexer_ids: tuple[int, ...] | None = None
    place: str = ""

    @property
    def is_float(self) -> bool:
        """Return whether the raw value is an IEEE float."""
        return self.conversion.is_float


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """Describes one message; `length` is in bytes, and `place` names file and line."""

    name: str
    frame_id: int
    is_extended_frame: bool
    length: int
    signals: tuple[Signal, ...]
    place: str = ""
    # A DBC has no containers.
    is_container: bool = field(default=False, init=False)
    contained_messages: "tuple[Message, ...]" = field(default=(), init=False)
    header_id: int | None = field(default=None, init=False)


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """Holds the messages of one database, and notes on what the reader repaired or left out."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...] = ()
