"""Reads a mapping document: a VSS tree in JSON, or a flat overlay (path to leaf).  Pure.

A leaf with `dbc2vss`, or its old name `dbc`, is an entry.  Other leaves are passed over.  The defaults of the
leaves `Vehicle.VersionVSS.*` say for which version of VSS the mapping was written.  The form is that of KUKSA's CAN
provider (eclipse-kuksa/kuksa-can-provider, mapping/README.md), with one extension: `signals` in place of `signal` names
several CAN signals, with which `math` computes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.errors import Permanent
from agent.formats.down.mapping.catalog import version_of
from agent.formats.down.mapping.entries import INPUT, Entry, Scalar, ValueMap, VssMapping
from agent.formats.down.mapping.formula import Formula, parse_formula
from agent.formats.down.mapping.operations import FUNCTIONS, NOT_REPEATABLE, PREFIX
from agent.formats.down.mapping.tokens import FormulaError

DEFAULT_INTERVAL_MS: Final = 1_000
MAX_ENTRIES: Final = 10_000
"""VSS 6 has about a thousand leaves."""
MAX_INTERVAL_MS: Final = 2**32 - 1
_FIELDS: Final = ("signal", "signals", "interval_ms", "on_change", "transform")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED: Final = frozenset({"E", "PI", "in", "not", "and", "or", "xor", *PREFIX, *FUNCTIONS, *NOT_REPEATABLE})
_DEPTH: Final = 30


def parse_mapping(document: object, source: str) -> VssMapping:
    """Parse a mapping document, whose JSON or YAML has been read already; `source` names the file.

    Raises: Permanent, with the file, the VSS path and the remedy.
    """
    if not isinstance(document, dict):
        raise Permanent(f"{source}: a mapping is an object from VSS paths to their leaves, or a VSS tree")
    entries: dict[str, Entry] = {}
    notes: list[str] = []
    defaults: dict[str, object] = {}
    for path, leaf in _leaves(document, "", source, 0):
        defaults[path] = leaf.get("default")
        reader = _Leaf(path, leaf, source)
        if reader.section is None:
            continue
        if path in entries:
            raise reader.refusal("the path has two entries; remove one")
        entries[path] = reader.entry()
        notes += reader.notes
    if len(entries) > MAX_ENTRIES:
        raise Permanent(f"{source}: the mapping has {len(entries):,} entries, and {MAX_ENTRIES:,} is the limit")
    return VssMapping(tuple(entries.values()), tuple(notes), version_of(defaults))


def _leaves(nodes: Mapping[Any, Any], prefix: str, source: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in nodes.items():
        path = f"{prefix}{name}"
        if not isinstance(node, dict):
            raise Permanent(f"{source}: {path}: a branch or leaf must be an object, not {_shown(node)}")
        children = node.get("children")
        if children is None:
            yield path, node
        elif not isinstance(children, dict) or depth == _DEPTH:
            raise Permanent(f"{source}: {path}: children must be an object from names to nodes, at most {_DEPTH} deep")
        else:
            yield from _leaves(children, f"{path}.", source, depth + 1)


class _Leaf:
    """Reads one leaf.  `section` is what it says about CAN, or None."""

    def __init__(self, path: str, leaf: dict[str, Any], source: str) -> None:
        self._path, self._leaf, self._source = path, leaf, source
        self.notes: list[str] = []
        if "dbc" in leaf and "dbc2vss" in leaf:
            raise self.refusal("dbc is the old name of dbc2vss; remove one of them")
        self._key = "dbc2vss" if "dbc2vss" in leaf else "dbc"
        self.section: dict[str, Any] | None = leaf.get(self._key)
        if self._key in leaf and not isinstance(self.section, dict):
            raise self.refusal(f"{self._key} must be an object with signal, not {_shown(self.section)}")
        if "vss2dbc" in leaf:
            self.notes.append(f"{source}: {path}: vss2dbc is ignored, because nothing is ever sent to a bus")

    def refusal(self, what: str) -> Permanent:
        """Return an error that names the path."""
        return Permanent(f"{self._source}: {self._path}: {what}")

    def entry(self) -> Entry:
        """Return the entry.  Raises: Permanent."""
        section = self.section
        assert section is not None
        for field in section:
            if field not in _FIELDS:
                raise self.refusal(f"{self._key} has no field {field!r}; its fields are {', '.join(_FIELDS)}")
        datatype = self._leaf.get("datatype")
        if not isinstance(datatype, str) or not datatype:
            raise self.refusal("the leaf needs a datatype, such as float or string")
        unit = self._leaf.get("unit")
        if unit is not None and not isinstance(unit, str):
            raise self.refusal(f"unit must be a text, not {_shown(unit)}")
        on_change = section.get("on_change", False)
        if not isinstance(on_change, bool):
            raise self.refusal(f"on_change must be true or false, not {_shown(on_change)}")
        interval_ms = section.get("interval_ms", 0 if on_change else DEFAULT_INTERVAL_MS)
        if not isinstance(interval_ms, int) or isinstance(interval_ms, bool) or not 0 <= interval_ms <= MAX_INTERVAL_MS:
            raise self.refusal(
                f"interval_ms must be a whole number of milliseconds from 0 to {MAX_INTERVAL_MS}, "
                f"not {_shown(interval_ms)}"
            )
        combines = "signals" in section
        signals = self._signals(section["signals"]) if combines else {INPUT: self._signal(section.get("signal"))}
        if combines and "signal" in section:
            raise self.refusal("signal and signals exclude each other; remove one")
        transform = self._transform(section["transform"], tuple(signals)) if "transform" in section else None
        if combines and not isinstance(transform, Formula):
            raise self.refusal("signals need a transform with math, which computes with them")
        return Entry(self._path, datatype, signals, combines, interval_ms * 1_000, on_change, transform, unit)

    def _signal(self, name: object) -> str:
        if not isinstance(name, str) or not name:
            raise self.refusal("signal must name a CAN signal, as Signal or Message.Signal")
        return name

    def _signals(self, named: object) -> dict[str, str]:
        if not isinstance(named, dict) or not named:
            raise self.refusal("signals must be an object from names in the formula to CAN signals")
        for name in named:
            if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in _RESERVED:
                raise self.refusal(f"signals: {_shown(name)} cannot name a value in a formula; use another word")
        return {name: self._signal(signal) for name, signal in named.items()}

    def _transform(self, transform: object, names: tuple[str, ...]) -> Formula | ValueMap:
        if not isinstance(transform, dict) or len(transform) != 1 or next(iter(transform)) not in ("math", "mapping"):
            raise self.refusal("transform must have exactly one of math and mapping")
        ((kind, value),) = transform.items()
        return self._formula(value, names) if kind == "math" else self._value_map(value)

    def _formula(self, text: object, names: tuple[str, ...]) -> Formula:
        if not isinstance(text, str):
            raise self.refusal(f"math must be a text, not {_shown(text)}")
        try:
            return parse_formula(text, names)
        except FormulaError as error:
            raise self.refusal(f"math {text!r}: {error}") from error

    def _value_map(self, pairs: object) -> ValueMap:
        if not isinstance(pairs, list):
            raise self.refusal(f"mapping must be a list of pairs {{from, to}}, not {_shown(pairs)}")
        found: list[tuple[Scalar, Scalar]] = []
        for number, pair in enumerate(pairs, 1):
            if not isinstance(pair, dict) or pair.keys() != {"from", "to"}:
                raise self.refusal(f"mapping: pair {number} must have from and to, and nothing else")
            for key, value in pair.items():
                if not isinstance(value, (bool, int, float, str)):
                    raise self.refusal(
                        f"mapping: {key} of pair {number} must be a number, a text, true or false, not {_shown(value)}"
                    )
            found.append((pair["from"], pair["to"]))
        return ValueMap(tuple(found))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
