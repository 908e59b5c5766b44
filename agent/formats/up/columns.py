"""The content of a batch as frozen dataclasses over numpy columns, shared by collectors, codec and lake.  Pure.

Invariant: raw integers travel, never rounded physical values; `can_dbc.values.physical` recovers the value exactly as
the database defines it, `raw * scale + offset` in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.values import Kind, floating, text_keys

EventValue = str | int | float | bool


class ClockQuality(IntEnum):
    """Where the wall clock's time came from.  The numbers travel (telemetry.proto)."""

    UNSYNCHRONISED = 1
    RTC = 2
    NETWORK = 3
    GNSS = 4
    RECORDED = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """How far the times of a window can be believed, and two readings of one moment to correct them by.

    `wall_us` (Unix epoch) and `boottime_us` (CLOCK_BOOTTIME) are read together; `boot_id` names the kernel's
    boot.
    """

    quality: ClockQuality
    boot_id: str
    wall_us: int
    boottime_us: int


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """One signal: `name` is "Message.Signal", `bus` the channel ("can0"), `bits` its width."""

    name: str
    bus: str
    unit: str | None
    kind: Kind
    bits: int
    scale: float
    offset: float


Described = tuple[SignalInfo, Mapping[int, str]]
"""A signal and its value table; the keys of an IEEE float's table are values without their fraction."""


@dataclass(frozen=True, slots=True, eq=False)
class ColumnGroup:
    """Signals that share their times.

    `t_us` (n,) int64, Unix epoch, in bus order (not always ascending); `raw` (S, n) int64, row i of signals[i];
    unsigned 64-bit values and IEEE floats as their bit pattern.  `tables[i]` is the value table of signals[i], whole or
    without entries that do not occur.  `source_address` (0 to 255): the sender of a J1939 message; None elsewhere.
    `numbers` (S,) int64: the place of each signal in the list of all that the campaign may collect, from which its
    catalogue is made; None where they are not numbered, as in a batch that was read.
    """

    t_us: NDArray[np.int64]
    signals: tuple[SignalInfo, ...]
    raw: NDArray[np.int64]
    tables: tuple[Mapping[int, str], ...]
    source_address: int | None = None
    numbers: NDArray[np.int64] | None = None

    @property
    def texts(self) -> tuple[Mapping[int, str], ...]:
        """For each signal the texts of the raw values that occur, by raw value.  Looked up anew each time."""
        return tuple(map(texts_of, self.signals, self.tables, self.raw))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: a loss, a receipt, a state of the agent.  `kind` is snake_case."""

    t_us: int
    kind: str
    fields: Mapping[str, EventValue]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The samples of one campaign from `start_us` to `end_us` (Unix epoch), or events alone (campaign "")."""

    campaign: str
    revision: str
    start_us: int
    end_us: int
    clock: Clock
    groups: tuple[ColumnGroup, ...]
    events: tuple[Event, ...] = ()

    @property
    def samples(self) -> int:
        """Count the values in the window."""
        return sum(group.raw.size for group in self.groups)


_COUNTED: Final = 4_096  # values within so few numbers are counted, not sorted
_NO_TEXTS: Final[Mapping[int, str]] = {}


def physical_values(group: ColumnGroup) -> NDArray[np.float64]:
    """Return the physical values of a group (S, n), each to the bit as `can_dbc.values.physical` gives it."""
    scale = np.array([[signal.scale] for signal in group.signals], np.float64)
    offset = np.array([[signal.offset] for signal in group.signals], np.float64)
    kinds = {signal.kind for signal in group.signals}
    with np.errstate(all="ignore"):  # the infinities and NaNs of IEEE signals are values, not mistakes
        if len(kinds) == 1:  # one set of array operations serves all rows
            return floating(kinds.pop(), group.raw) * scale + offset
        numbers = [floating(signal.kind, raw) for signal, raw in zip(group.signals, group.raw, strict=True)]
        return np.stack(numbers) * scale + offset


def texts_of(signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> Mapping[int, str]:
    """Return the texts that the value table has for the values in `raw` (n,), by raw value."""
    if not table:
        return _NO_TEXTS
    values = different(raw)
    keys = text_keys(signal, np.array(values, np.int64)).tolist()
    return {value: table[key] for value, key in zip(values, keys, strict=True) if key in table}


def occurring(signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> Mapping[int, str]:
    """Return the entries of the value table that values in `raw` (n,) have."""
    if not table:
        return _NO_TEXTS
    keys = text_keys(signal, np.array(different(raw), np.int64)).tolist()
    return {key: table[key] for key in keys if key in table}


def different(raw: NDArray[np.int64]) -> list[int]:
    """Return the different values in `raw` (n,), ascending; most columns hold one, or few near each other."""
    lowest, highest = int(raw.min()), int(raw.max())
    if lowest == highest:
        return [lowest]
    if highest - lowest < _COUNTED:
        found: list[int] = (np.flatnonzero(np.bincount(raw - lowest)) + lowest).tolist()
    else:
        found = np.unique(raw).tolist()
    return found
