"""Holds quantities of the virtual vehicle over time as columns, which are float64 arrays with 100 rows for each second.

Pure.  Units are SI units unless the name says otherwise.  Flags are 0.0 and 1.0.  All columns of a group have the same
length.  A row is the state at the end of a step of 10 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

STEPS_PER_S: Final = 100
STEP_S: Final = 1 / STEPS_PER_S

Column = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A group of columns.  Its subclasses have only columns as fields."""

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the group with only the given rows, in the given order."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def join(cls, groups: Sequence[Self]) -> Self:
        """Join groups that follow each other in time into one group."""
        return cls(*(np.concatenate([getattr(group, field.name) for group in groups]) for field in fields(cls)))


def constant(value: float) -> Column:
    """Return a column of one second that has the same value in every row."""
    return np.full(STEPS_PER_S, float(value))


def flag(values: Flags) -> Column:
    """Return truth values as 0.0 and 1.0."""
    return values.astype(np.float64)


def lagged(target: Column, before: float, time_constant_s: float) -> Column:
    """Return a column that follows `target` with a first-order lag.  `before` is its value before the first row."""
    # A matrix product would be faster, but BLAS rounds differently on different machines.  A drive must be the same on
    # all machines.
    keep = 1.0 - STEP_S / time_constant_s
    value, values = before, []
    for wanted in target.tolist():
        value = wanted + (value - wanted) * keep
        values.append(value)
    return np.array(values)
