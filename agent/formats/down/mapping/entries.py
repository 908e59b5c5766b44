"""Says what a mapping tells of one VSS path, and how a value of a CAN signal becomes a value of the path.  Pure."""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.formats.down.mapping.formula import Formula

Scalar = bool | int | float | str
INPUT: Final = "x"
"""The name of the signal's value in a formula."""


class ValueMap(msgspec.Struct, frozen=True):
    """The transform `mapping`: pairs of a signal's value and a path's value, of which the first match counts."""

    pairs: tuple[tuple[Scalar, Scalar], ...]

    def value(self, given: Scalar) -> Scalar | None:
        """Return the value of the path, or None if no pair matches."""
        for source, target in self.pairs:
            if isinstance(source, str) is isinstance(given, str) and source == given:
                return target
        return None


class Entry(msgspec.Struct, frozen=True):
    """The mapping of one VSS path.

    `signals` has the names of the CAN signals, as the document spells them, by the names that a formula uses for them.
    A path with one signal has it under INPUT.  `combines` is true for a path of several signals, which `transform` then
    computes with.  `interval_us` is the least time between two uses.  With `on_change`, only values that differ from
    the last one are given.  `unit` is the unit that the document names for the path, or None.
    """

    path: str
    datatype: str
    signals: Mapping[str, str]
    combines: bool
    interval_us: int
    on_change: bool
    transform: Formula | ValueMap | None
    unit: str | None = None

    def of_one(self, number: float | int, text: str | None, *, scaled: bool) -> Scalar | None:
        """Return the value of the path for a value of its signal, or None if there is none.

        `number` is the physical value, and `text` its text in the value table.  `scaled` says whether the signal has a
        factor other than 1 or an offset other than 0.
        """
        if isinstance(self.transform, ValueMap):
            return finite(self.transform.value(number if text is None else text))
        if isinstance(self.transform, Formula):
            return finite(self.transform.value({INPUT: number if text is None else text}))
        if text is None:
            return finite(number)
        if self.datatype == "string":
            return text
        # The text of a scaled signal marks a state, such as "not available", and not a measurement.
        return None if scaled else finite(number)

    def of_several(self, values: Mapping[str, float | int | str]) -> Scalar | None:
        """Return the value of the path for the newest values of its signals, or None if there is none."""
        assert isinstance(self.transform, Formula)
        return finite(self.transform.value(values))


def finite(value: Any) -> Scalar | None:
    """Return a truth, a text or a finite real number as it is, and None for anything else."""
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST else None
    return value if isinstance(value, float) and math.isfinite(value) else None


_LARGEST: Final = 2**1023


class VssMapping(msgspec.Struct, frozen=True):
    """A whole mapping: its entries in their order, notes for its author, and the version of VSS, or "" without one."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    version: str = ""
