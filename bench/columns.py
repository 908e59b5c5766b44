"""Decoded values of a drive in one form, whoever decoded them, and the proof that they are the same."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[tuple[str, str, str], NDArray[np.float64]]
"""By bus, message and signal: the physical values in the order of the frames."""


def key(bus: str, message: str, signal: str, source_address: int | None) -> tuple[str, str, str]:
    """Of Columns; what senders of J1939 have in common is held apart by their source addresses."""
    return bus, message if source_address is None else f"{message} from {source_address}", signal


class Different(Exception):
    """Two decoders disagree: no ratio of theirs means anything."""


def check_same(expected: Columns, found: Columns, who: str) -> int:
    """How many values are the same to the last bit.  Raises Different with the first signal that is not."""
    if missing := sorted(set(expected) ^ set(found)):
        raise Different(f"{who}: only one side has {'.'.join(missing[0])} and {len(missing) - 1} more signals")
    for key, values in expected.items():
        ours = found[key]
        if len(values) != len(ours) or not np.array_equal(values, ours, equal_nan=True):
            raise Different(f"{who}: {'.'.join(key)} differs ({len(values)} and {len(ours)} values)")
    return sum(len(values) for values in expected.values())
