"""Says how the samples of a VSS path are stored as raw integers.  This file is pure.

Each path of a mapping becomes a signal table with one signal, whose name is the path.

- Without a transform, or with a linear one (`x * 0.1 - 40`), the raw integers of the CAN signal stay, and scale and
  offset are those of signal and transform together.
- A value map gives whole numbers (true is 1), or texts, each with a number in the value table.
- All else is an IEEE float of 64 bits.

A path is left out, with a note, if its values may be both texts and numbers, or texts that a formula makes, because
a catalogue lists all texts in advance.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Final

import msgspec

from agent.formats.down.mapping.entries import INPUT, Entry, Scalar, ValueMap, VssMapping
from agent.formats.down.mapping.formula import Formula
from agent.formats.up.columns import Described, SignalInfo
from agent.formats.up.limits import MAX_LABEL_CHARS, MAX_NAME_CHARS, MAX_TEXT_CHARS, shortened
from agent.formats.up.signals import SignalTable
from agent.telemetry.collect.names import Place, SignalNames
from can_dbc.values import WORD_BITS, Kind

_MANY_BUSES: Final = "vss"
"""The bus of a path whose signals come from several buses."""
_WHOLE: Final = (Kind.INT, Kind.UINT)
_INT64: Final = 2**63


class Storage(Enum):
    """Says what the raw integers of a path are."""

    AS_ON_THE_BUS = auto()
    WHOLE = auto()
    TEXT = auto()
    FLOAT = auto()


class MappedPath(msgspec.Struct, frozen=True):
    """A path that can be collected: its entry, the signals that feed it by their names there, and how it is stored."""

    entry: Entry
    places: Mapping[str, tuple[Place, ...]]
    storage: Storage
    described: Described

    def raw_of(self, value: Scalar, on_the_bus: int) -> int | None:
        """Return the raw integer of a value of the path, or None if it has none.

        `on_the_bus` is the raw integer of the CAN signal.
        """
        match self.storage:
            case Storage.AS_ON_THE_BUS:
                return on_the_bus
            case Storage.TEXT:
                return next((raw for raw, text in self.described[1].items() if text == _text(value)), None)
            case _ if isinstance(value, str):
                return None
            case Storage.WHOLE:
                return int(value)
            case Storage.FLOAT:
                return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def mapped_paths(
    mappings: Iterable[tuple[str | None, VssMapping]], tables: Sequence[SignalTable], names: SignalNames
) -> tuple[list[MappedPath], list[str]]:
    """Return the paths that can be collected, and notes on those that cannot.

    Each mapping is for one bus, or for all buses if the bus is None.
    """
    found, notes = [], []
    for bus, mapping in mappings:
        for entry in mapping.entries:
            places = {name: names.find_bare(signal, bus) for name, signal in entry.signals.items()}
            missing = [entry.signals[name] for name, each in places.items() if not each]
            if missing:
                near = names.suggest_bare(missing[0])
                hint = "" if near is None else f"; did you mean {near}?"
                notes.append(f"{entry.path}: no database has the signal {missing[0]}{hint}")
                continue
            if "\n" in entry.path or entry.path.startswith(".") or not 0 < len(entry.path) <= MAX_NAME_CHARS:
                notes.append(f"{entry.path[:60]!r}: use a path of 1 to {MAX_NAME_CHARS} characters without line breaks")
                continue
            feeding = [tables[place.table].signals[place.signal] for each in places.values() for place in each]
            how = _storage(entry, feeding)
            if how is None:
                notes.append(f"{entry.path}: its values may be texts that are not known in advance; use a value map")
                continue
            found.append(MappedPath(entry, places, *how))
    return found, notes


def _storage(entry: Entry, feeding: Sequence[Described]) -> tuple[Storage, Described] | None:
    transform, (info, texts) = entry.transform, feeding[0]
    asked_unit = None if entry.unit is None else shortened(entry.unit, MAX_LABEL_CHARS)
    buses = {info.bus for info, _ in feeding}
    base = SignalInfo(entry.path, buses.pop() if len(buses) == 1 else _MANY_BUSES, asked_unit, Kind.INT, 64, 1.0, 0.0)
    alike = all(
        (other.kind, other.bits, other.scale, other.offset, listed) == (*_numbers(info), texts)
        for other, listed in feeding
    )
    if alike and not entry.combines and info.kind in _WHOLE and not isinstance(transform, ValueMap):
        factor, constant = (1.0, 0.0) if transform is None else linear(transform)
        if factor and math.isfinite(factor * info.scale) and math.isfinite(info.offset * factor + constant):
            listed = texts if entry.datatype == "string" and transform is None else {}
            unit = asked_unit or (info.unit if transform is None else None)
            scale, offset = info.scale * factor, info.offset * factor + constant
            kind_and_scale = {"kind": info.kind, "bits": info.bits, "scale": scale, "offset": offset}
            return Storage.AS_ON_THE_BUS, (msgspec.structs.replace(base, unit=unit, **kind_and_scale), listed)
    if isinstance(transform, ValueMap):
        return _of_values([target for _, target in transform.pairs], base)
    if entry.datatype == "string" and (transform is not None or any(listed for _, listed in feeding)):
        return None
    return Storage.FLOAT, (msgspec.structs.replace(base, kind=Kind.FLOAT64), {})


def _numbers(info: SignalInfo) -> tuple[Kind, int, float, float]:
    return info.kind, info.bits, info.scale, info.offset


def _of_values(values: Sequence[Scalar], base: SignalInfo) -> tuple[Storage, Described] | None:
    texts = [_text(value) for value in values if isinstance(value, str)]
    if len(texts) == len(values):
        listed = dict(enumerate(dict.fromkeys(texts)))
        return Storage.TEXT, (msgspec.structs.replace(base, kind=Kind.UINT, bits=32), listed)
    if texts:
        return None
    numbers = [value for value in values if not isinstance(value, str)]
    if all(float(number).is_integer() and -_INT64 <= number < _INT64 for number in numbers):
        return Storage.WHOLE, (msgspec.structs.replace(base, bits=WORD_BITS), {})
    return Storage.FLOAT, (msgspec.structs.replace(base, kind=Kind.FLOAT64), {})


def _text(value: Scalar) -> str:
    return shortened(str(value), MAX_TEXT_CHARS)


def linear(formula: Formula) -> tuple[float, float]:
    """Return factor and constant of a formula that is linear in its value, or (0.0, 0.0) if it is not."""
    if not any(step.operands for step in formula.steps):
        return 0.0, 0.0  # `x` alone passes texts on, which a linear formula never does
    found = formula.value({INPUT: _Line(1.0, 0.0)})  # type: ignore[dict-item]
    return (found.factor, found.constant) if isinstance(found, _Line) else (0.0, 0.0)


class _Line:
    """The value `factor * x + constant`, which raises TypeError wherever the result would not be of this form."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, factor: float, constant: float) -> None:
        self.factor, self.constant = factor, constant

    def _refused(self, *_: object) -> bool:
        raise TypeError("this is not linear")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _refused
    __str__ = __repr__ = __format__ = _refused  # type: ignore[assignment]

    def __add__(self, other: object) -> "_Line":
        added = _line(other)
        return _Line(self.factor + added.factor, self.constant + added.constant)

    __radd__ = __add__

    def __neg__(self) -> "_Line":
        return _Line(-self.factor, -self.constant)

    def __sub__(self, other: object) -> "_Line":
        return self + -_line(other)

    def __rsub__(self, other: object) -> "_Line":
        return _line(other) + -self

    def __mul__(self, other: object) -> "_Line":
        return _Line(self.factor * _number(other), self.constant * _number(other))

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> "_Line":
        return _Line(self.factor / _number(other), self.constant / _number(other))


def _line(other: object) -> _Line:
    return other if isinstance(other, _Line) else _Line(0.0, _number(other))


def _number(value: object) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    raise TypeError("this is not linear")
