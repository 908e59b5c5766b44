"""What a batch says, as frozen dataclasses over numpy columns: shared by policy, codec and lake.  Pure.

Invariant: raw integers travel, never rounded physical values; `physical` recovers the value exactly as the
DBC defines it, `raw * scale + offset` in float64.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, overload

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
    signals[i] to the texts of its value table, only those that occur: as such, or as `TableTexts`.  `source_address`
    (0 to 255): of J1939, who sent all of them; None elsewhere.
    """

    t_us: NDArray[np.int64]
    signals: tuple[SignalInfo, ...]
    raw: NDArray[np.int64]
    texts: Sequence[Mapping[int, str]]
    source_address: int | None = None


class TableTexts(Sequence[Mapping[int, str]]):
    """The texts that whole value tables have for the rows of `raw`, looked up when somebody asks: most never do.

    `tables[i]` belongs to `signals[i]`; that of an IEEE float counts by the value without its fraction.
    """

    __slots__ = ("_raw", "_signals", "tables")

    def __init__(
        self, signals: tuple[SignalInfo, ...], tables: tuple[Mapping[int, str], ...], raw: NDArray[np.int64]
    ) -> None:
        self._signals, self.tables, self._raw = signals, tables, raw

    def __len__(self) -> int:
        return len(self.tables)

    @overload
    def __getitem__(self, row: int) -> Mapping[int, str]: ...

    @overload
    def __getitem__(self, row: slice) -> "TableTexts": ...

    def __getitem__(self, row: int | slice) -> "Mapping[int, str] | TableTexts":
        if isinstance(row, slice):
            return TableTexts(self._signals[row], self.tables[row], self._raw[row])
        table = self.tables[row]
        return texts_of(self._signals[row].kind, table, different(self._raw[row])) if table else _NO_TEXTS

    def of(self, raw: NDArray[np.int64]) -> "TableTexts":
        """The texts of other samples of the same signals."""
        return TableTexts(self._signals, self.tables, raw)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: a loss, a receipt, a state of the agent.  `kind` is snake_case."""

    t_us: int
    kind: str
    fields: Mapping[str, EventValue]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What one campaign collected from `start_us` to `end_us` (Unix epoch), or events alone (campaign "").

    `replaces`: numbers (seq) of earlier batches, ascending, of which everything is in this one; of a window that was
    cut, in all of its pieces together.
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
_COUNTED: Final = 4_096  # values within so few numbers are counted, not sorted
_NO_TEXTS: Final[Mapping[int, str]] = {}


def physical(signal: SignalInfo, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    """Physical values (shaped as `raw`) in float64: `raw * scale + offset`, floats from their bit pattern."""
    with np.errstate(all="ignore"):  # infinities and NaNs of IEEE signals are values, not mistakes
        return _floating(signal.kind, raw) * signal.scale + signal.offset


def physical_values(group: ColumnGroup) -> NDArray[np.float64]:
    """`physical` of each row of a group, (S, n): one set of array operations where all signals are of one kind."""
    kinds = {signal.kind for signal in group.signals}
    if len(kinds) > 1:
        return np.stack([physical(signal, raw) for signal, raw in zip(group.signals, group.raw, strict=True)])
    scale = np.array([[signal.scale] for signal in group.signals], np.float64)
    offset = np.array([[signal.offset] for signal in group.signals], np.float64)
    with np.errstate(all="ignore"):
        return _floating(kinds.pop(), group.raw) * scale + offset


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


def different(raw: NDArray[np.int64]) -> list[int]:
    """The different values in `raw` (n,), ascending; most columns hold one, or few near each other."""
    lowest, highest = int(raw.min()), int(raw.max())
    if lowest == highest:
        return [lowest]
    if highest - lowest < _COUNTED:
        found: list[int] = (np.flatnonzero(np.bincount(raw - lowest)) + lowest).tolist()
    else:
        found = np.unique(raw).tolist()
    return found


def _floating(kind: Kind, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    if kind in _FLOATS:
        pattern, floating = _FLOATS[kind]
        return raw.astype(pattern).view(floating).astype(np.float64)
    if kind is Kind.UINT:
        return raw.view(np.uint64).astype(np.float64)
    return raw.astype(np.float64)
