"""What a batch says, as frozen dataclasses over numpy columns: shared by policy, codec and lake.  Pure.

Invariant: raw integers travel, never rounded physical values; `physical` recovers the value exactly as the
DBC defines it, `raw * scale + offset` in float64.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

EventValue = str | int | float | bool


class Kind(IntEnum):
    """How a raw integer is read; the numbers are those on the wire."""

    UINT = 1
    INT = 2
    FLOAT16 = 3
    FLOAT32 = 4
    FLOAT64 = 5


class ClockQuality(IntEnum):
    """Where the wall clock's time came from; the numbers are those on the wire."""

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


@dataclass(frozen=True, slots=True, eq=False)
class ColumnGroup:
    """Signals that share their times.

    `t_us` (n,) int64, Unix epoch, in bus order (not always ascending); `raw` (S, n) int64, row i of
    signals[i]; unsigned 64-bit values and IEEE floats as their bit pattern.  `texts[i]` maps raw values of
    signals[i] to the texts of its value table, only those that occur.  `source_address` (0 to 255): of J1939, who sent
    all of them; None elsewhere.
    """

    t_us: NDArray[np.int64]
    signals: tuple[SignalInfo, ...]
    raw: NDArray[np.int64]
    texts: tuple[Mapping[int, str], ...]
    source_address: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: a loss, a receipt, a state of the agent.  `kind` is snake_case."""

    t_us: int
    kind: str
    fields: Mapping[str, EventValue]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What one campaign collected from `start_us` to `end_us` (Unix epoch), or events alone (campaign "").

    `replaces`: numbers (seq) of earlier batches, ascending, of which everything is in this one.
    """

    campaign: str
    revision: str
    start_us: int
    end_us: int
    clock: Clock
    groups: tuple[ColumnGroup, ...]
    events: tuple[Event, ...] = ()
    replaces: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        """Values in the window."""
        return sum(group.raw.size for group in self.groups)


_FLOATS: Final[Mapping[Kind, tuple[type[np.unsignedinteger], type[np.floating]]]] = {
    Kind.FLOAT16: (np.uint16, np.float16),
    Kind.FLOAT32: (np.uint32, np.float32),
    Kind.FLOAT64: (np.uint64, np.float64),
}
_FAR: Final = 2.0**62  # beyond every key of a value table


def physical(signal: SignalInfo, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    """Physical values (shaped as `raw`) in float64: `raw * scale + offset`, floats from their bit pattern."""
    with np.errstate(all="ignore"):  # infinities and NaNs of IEEE signals are values, not mistakes
        return _floating(signal.kind, raw) * signal.scale + signal.offset


def texts_of(kind: Kind, table: Mapping[int, str], values: Iterable[int]) -> dict[int, str]:
    """The texts that a whole value table has for raw `values` of a signal of `kind`.

    The table of an IEEE float counts by the value without its fraction.
    """
    if kind not in _FLOATS:
        return {value: table[value] for value in values if value in table}
    raw = np.array(list(values), np.int64)
    with np.errstate(invalid="ignore"):  # signalling NaNs are values as well
        whole = np.nan_to_num(_floating(kind, raw), nan=-_FAR, posinf=_FAR, neginf=-_FAR)
    keys = np.clip(whole, -_FAR, _FAR).astype(np.int64)
    return {value: table[key] for value, key in zip(raw.tolist(), keys.tolist(), strict=True) if key in table}


def _floating(kind: Kind, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    if kind in _FLOATS:
        pattern, floating = _FLOATS[kind]
        return raw.astype(pattern).view(floating).astype(np.float64)
    if kind is Kind.UINT:
        return raw.view(np.uint64).astype(np.float64)
    return raw.astype(np.float64)
