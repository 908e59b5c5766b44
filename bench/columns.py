"""Defines a common form for the values that decoders return, and checks that two decoders agree."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[tuple[str, str, str], NDArray[np.float64]]
"""Maps (bus, message, signal) to physical values in the order of the frames."""


def key(bus: str, message: str, signal: str, source_address: int | None) -> tuple[str, str, str]:
    """Return the key of a signal in Columns; the source address separates J1939 messages of different senders."""
    return bus, message if source_address is None else f"{message} from {source_address}", signal


class Different(Exception):
    """Two decoders give different values, so a ratio between them would mean nothing."""


def check_same(expected: Columns, found: Columns, who: str) -> int:
    """Check that both sides have equal values, and return how many there are; `who` names the decoders in the error.

    NaN equals NaN.

    Raises: Different if values differ or a signal is missing.  The error names the first such signal.
    """
    if missing := sorted(set(expected) ^ set(found)):
        raise Different(f"{who}: only one side has the signal {'.'.join(missing[0])} (and {len(missing) - 1} others)")
    for key, values in expected.items():
        ours = found[key]
        if len(values) != len(ours) or not np.array_equal(values, ours, equal_nan=True):
            raise Different(f"{who}: the values of {'.'.join(key)} differ ({len(values)} and {len(ours)} values)")
    return sum(len(values) for values in expected.values())
