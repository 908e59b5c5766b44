"""Checks a mapping against a catalog of VSS, and says what another version of the catalog would change.  Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent.formats.down.mapping.catalog import Catalog, CatalogLeaf, differences
from agent.formats.down.mapping.entries import Entry, Scalar, ValueMap, VssMapping

_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "km/h": ("kph", "kmh", "kmph", "km/hr"),
    "mph": ("mi/h", "miles/h"),
    "m/s": ("meter/s", "mps"),
    "celsius": ("c", "degc", "deg c", "°c", "grad c"),
    "fahrenheit": ("f", "degf", "deg f", "°f"),
    "kelvin": ("k",),
    "percent": ("%", "pct"),
    "degrees": ("deg", "degree", "°"),
    "rad": ("radian", "radians"),
    "V": ("volt", "volts"),
    "mV": ("millivolt",),
    "A": ("ampere", "amp", "amps"),
    "mA": (),
    "W": ("watt", "watts"),
    "kW": (),
    "kWh": (),
    "Wh": (),
    "Nm": ("n.m", "n*m"),
    "rpm": ("1/min", "r/min", "u/min"),
    "Pa": (),
    "hPa": (),
    "kPa": (),
    "bar": (),
    "mbar": (),
    "psi": (),
    "mm": (),
    "cm": (),
    "m": ("meter", "metre", "meters"),
    "km": (),
    "mi": ("mile", "miles"),
    "s": ("sec", "second", "seconds"),
    "ms": ("millisecond",),
    "min": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "m/s^2": ("m/s2", "m/s²"),
    "degrees/s": ("deg/s", "°/s"),
    "rad/s": (),
    "l": ("liter", "litre", "liters"),
    "kg": (),
    "g": (),
}
"""Units with one meaning, by their names in VSS, and how databases spell them (in any case)."""
_UNITS: Final = {spelt.lower(): unit for unit, others in _SPELLINGS.items() for spelt in (unit, *others)}
_WHOLE: Final = ("int", "uint")


def check_against(mapping: VssMapping, catalog: Catalog, units: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what in the mapping contradicts the catalog, one sentence each.

    `units` has, for each path, the units of its CAN signals as the databases spell them.  They are compared where no
    transform could convert them.
    """
    found = []
    if mapping.version and catalog.version and mapping.version != catalog.version:
        found.append(
            f"the mapping is for VSS {mapping.version}, but {catalog.source} is the catalog of {catalog.title}"
        )
    for entry in mapping.entries:
        found += [f"{entry.path}: {what}" for what in _of_entry(entry, catalog, units.get(entry.path, ()))]
    return found


def upgrade_report(mapping: VssMapping, old: Catalog, new: Catalog) -> list[str]:
    """Return what changes for the paths of a mapping between two catalogs, one sentence each."""
    found = []
    for entry in mapping.entries:
        before, after = old.leaves.get(entry.path), new.leaves.get(entry.path)
        if before is None:
            continue  # `check_against` reports a path that the present catalog lacks.
        if after is None:
            found.append(f"{entry.path}: {_gone(entry.path, before, new)}")
        else:
            found += [f"{entry.path}: {what}" for what in differences(before, after)]
            found += [f"{entry.path}: {what}" for what in _new_faults(entry, before, after)]
    return found


def _of_entry(entry: Entry, catalog: Catalog, units: Sequence[str]) -> Iterator[str]:
    leaf = catalog.leaves.get(entry.path)
    if leaf is None:
        if entry.path in catalog.branches:
            yield f"this is a branch of {catalog.title}; name one of its leaves"
            return
        near = catalog.nearest(entry.path)
        yield f"{catalog.title} has no such path" + ("" if near is None else f"; did you mean {near}?")
        return
    if entry.datatype != leaf.datatype:
        yield f"the mapping says datatype {entry.datatype}, and {catalog.title} says {leaf.datatype}"
    if entry.unit is not None and entry.unit != leaf.unit:
        yield f"the mapping says unit {entry.unit}, and {catalog.title} says {leaf.unit or 'none'}"
    if leaf.deprecation:
        yield f"the path is deprecated ({leaf.deprecation})"
    yield from _value_faults(entry, leaf)
    if entry.transform is None and leaf.unit is not None:
        for unit in sorted(set(units)):
            known = _UNITS.get(unit.strip().lower())
            if known is not None and leaf.unit.lower() in _UNITS and known != leaf.unit:
                yield f"the CAN signal has unit {unit}, and the path {leaf.unit}; convert it with math"


def _value_faults(entry: Entry, leaf: CatalogLeaf) -> Iterator[str]:
    """Say which values of a value map the leaf does not allow."""
    if not isinstance(entry.transform, ValueMap):
        return
    for value in dict.fromkeys((type(to), to) for _, to in entry.transform.pairs):
        if not _fits(value[1], leaf.datatype):
            yield f"the mapping gives {value[1]!r}, which is no {leaf.datatype}"
        elif leaf.allowed and value[1] not in leaf.allowed:
            yield f"the mapping gives {value[1]!r}; allowed are {', '.join(map(str, leaf.allowed))}"
        elif isinstance(value[1], (int, float)) and not _within(value[1], leaf):
            yield f"the mapping gives {value[1]!r}, outside {leaf.minimum} to {leaf.maximum}"


def _new_faults(entry: Entry, before: CatalogLeaf, after: CatalogLeaf) -> Iterator[str]:
    old = set(_value_faults(entry, before))
    yield from (fault for fault in _value_faults(entry, after) if fault not in old)


def _fits(value: Scalar, datatype: str) -> bool:
    if datatype == "boolean":
        return isinstance(value, bool)
    if datatype == "string":
        return isinstance(value, str)
    if isinstance(value, (bool, str)):
        return False
    return not datatype.startswith(_WHOLE) or float(value).is_integer()


def _within(value: float, leaf: CatalogLeaf) -> bool:
    return (leaf.minimum is None or value >= leaf.minimum) and (leaf.maximum is None or value <= leaf.maximum)


def _gone(path: str, before: CatalogLeaf, new: Catalog) -> str:
    near = new.nearest(path)
    why = f" ({before.deprecation})" if before.deprecation else ""
    return f"the path is gone in {new.title}{why}" + ("" if near is None else f"; the nearest path is {near}")
