"""The values that a decoder gives for a drive, in one form for all decoders, and the check that they are equal."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[tuple[str, str, str], NDArray[np.float64]]
"""Physical values in the order of the frames, by bus, message and signal."""


def key(bus: str, message: str, signal: str, source_address: int | None) -> tuple[str, str, str]:
    """Return a key of Columns; J1939 messages of different senders are told apart by the source address."""
    return bus, message if source_address is None else f"{message} from {source_address}", signal


class Different(Exception):
    """Two decoders disagree, so that no ratio between them means anything."""


def check_same(expected: Columns, found: Columns, who: str) -> int:
    """Return how many values are equal to the last bit.  Raises: Different, with the first signal that is not."""
    if missing := sorted(set(expected) ^ set(found)):
        raise Different(f"{who}: only one side has {'.'.join(missing[0])} and {len(missing) - 1} more signals")
    for key, values in expected.items():
        ours = found[key]
        if len(values) != len(ours) or not np.array_equal(values, ours, equal_nan=True):
            raise Different(f"{who}: {'.'.join(key)} differs ({len(values)} and {len(ours)} values)")
    return sum(len(values) for values in expected.values())
