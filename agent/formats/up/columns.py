"""The content of a batch as frozen dataclasses over numpy columns.  Pure.

The collector, the encoder, the decoder and the lake share these classes.

Invariant: a batch has raw integers, never rounded physical values.  `can_dbc.values.physical` computes the physical
value from a raw integer exactly as the database defines it: `raw * scale + offset` in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.values import Kind, floating, text_keys

EventValue = str | int | float | bool


class ClockQuality(IntEnum):
    """The source of the wall clock's time.  The numbers are part of the format (telemetry.proto)."""

    UNSYNCHRONISED = 1
    RTC = 2
    NETWORK = 3
    GNSS = 4
    RECORDED = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """Says how far to trust the times of a window, and holds two clock readings to correct them later.

    `wall_us` (Unix epoch) and `boottime_us` (CLOCK_BOOTTIME) are read at the same moment.  `boot_id` identifies the
    boot of the kernel.
    """

    quality: ClockQuality
    boot_id: str
    wall_us: int
    boottime_us: int

    @property
    def is_trusted(self) -> bool:
        """Return whether the network or GNSS has set the wall clock in this boot."""
        return self.quality in (ClockQuality.NETWORK, ClockQuality.GNSS)


class SignalInfo(msgspec.Struct, frozen=True):
    """Describes one signal: `name` is "Message.Signal", `bus` is the channel ("can0"), `bits` is the signal's width."""

    name: str
    bus: str
    unit: str | None
    kind: Kind
    bits: int
    scale: float
    offset: float


Described = tuple[SignalInfo, Mapping[int, str]]
"""A signal and its value table.  The keys of the table are raw values, or, for an IEEE float, values
without their fraction."""


@dataclass(frozen=True, slots=True, eq=False)
class ColumnGroup:
    """Holds the samples of S signals that share n times.

    - `t_us` (n,) has the times since the Unix epoch in bus order, which is not always ascending.
    - `raw` (S, n) has one row for each signal.  Unsigned 64-bit values and IEEE floats are stored as bit patterns.
    - `tables` has the value table of each signal.  A table may lack entries whose values do not occur in `raw`.
    - `source_address` (0 to 255) is the sender of a J1939 message; None for other messages.
    - `numbers` (S,) has the index of each signal in the list from which the catalogue of the campaign is made.  It is
      None if the signals have no such index, for example after a batch is decoded.
    - `trigger` is the number of the trigger that sends the samples; None if no condition asked for them.
    """

    t_us: NDArray[np.int64]
    signals: tuple[SignalInfo, ...]
    raw: NDArray[np.int64]
    tables: tuple[Mapping[int, str], ...]
    source_address: int | None = None
    numbers: NDArray[np.int64] | None = None
    trigger: int | None = None

    @property
    def texts(self) -> tuple[Mapping[int, str], ...]:
        """Return, for each signal, the mapping from raw values that occur to texts.  Each access computes it again."""
        return tuple(map(texts_of, self.signals, self.tables, self.raw))


@dataclass(frozen=True, slots=True)
class Event:
    """Reports something that happened, such as a loss, a receipt or a state of the agent; `kind` is in snake_case."""

    t_us: int
    kind: str
    fields: Mapping[str, EventValue]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Holds what is collected from `start_us` to `end_us` (Unix epoch): the samples of one campaign, or events.

    A window that was made for events has no samples, and `campaign` is "".  `id` has 32 hex digits if checkpoints of
    the window were stored, and is "" otherwise.  After a disk was put back to an earlier state, both the window and its
    checkpoints may be sent.  The fleet recognises these checkpoints, because the epoch of their batches is `id`.
    """

    campaign: str
    revision: str
    start_us: int
    end_us: int
    clock: Clock
    groups: tuple[ColumnGroup, ...]
    events: tuple[Event, ...] = ()
    id: str = ""

    @property
    def samples(self) -> int:
        """Return the number of samples in the window: one for each signal and time."""
        return sum(group.raw.size for group in self.groups)


_COUNTED: Final = 4_096  # values in a range smaller than this are counted, because sorting is slower
_NO_TEXTS: Final[Mapping[int, str]] = {}


def physical_values(group: ColumnGroup) -> NDArray[np.float64]:
    """Return the physical values (S, n) of a group, bit for bit as `can_dbc.values.physical` returns them."""
    scale = np.array([[signal.scale] for signal in group.signals], np.float64)
    offset = np.array([[signal.offset] for signal in group.signals], np.float64)
    kinds = {signal.kind for signal in group.signals}
    with np.errstate(all="ignore"):  # the infinities and NaNs of IEEE signals are values, not mistakes
        if len(kinds) == 1:  # one set of array operations serves all rows
            return floating(kinds.pop(), group.raw) * scale + offset
        numbers = [floating(signal.kind, raw) for signal, raw in zip(group.signals, group.raw, strict=True)]
        return np.stack(numbers) * scale + offset


def texts_of(signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> Mapping[int, str]:
    """Return a mapping from each different value in `raw` (n,) to its text.  Values without a text are left out."""
    if not table:
        return _NO_TEXTS
    values = different(raw)
    keys = text_keys(signal, np.array(values, np.int64)).tolist()
    return {value: table[key] for value, key in zip(values, keys, strict=True) if key in table}


def occurring(signal: SignalInfo, table: Mapping[int, str], raw: NDArray[np.int64]) -> Mapping[int, str]:
    """Return those entries of the value table `table` that apply to values in `raw` (n,)."""
    if not table:
        return _NO_TEXTS
    keys = text_keys(signal, np.array(different(raw), np.int64)).tolist()
    return {key: table[key] for key in keys if key in table}


def different(raw: NDArray[np.int64]) -> list[int]:
    """Return the different values in `raw` (n,), ascending.  The call is fast if the values are close together."""
    lowest, highest = int(raw.min()), int(raw.max())
    if lowest == highest:
        return [lowest]
    if highest - lowest < _COUNTED:
        found: list[int] = (np.flatnonzero(np.bincount(raw - lowest)) + lowest).tolist()
    else:
        found = np.unique(raw).tolist()
    return found
