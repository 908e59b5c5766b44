"""Generates noise that depends only on its index, so any section can be computed without the values before it.

Pure.  All noise of the virtual vehicle comes from here.  The frames are therefore the same, however the drive is
cut into blocks.
"""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, stream: int, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each `index` of the `stream`, made by splitmix64 from seed, stream and index."""
    # Constants and shifts are those of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    key = np.uint64((seed * 0xD1342543DE82EF95 + stream * 0x2545F4914F6CDD1D) & 0xFFFF_FFFF_FFFF_FFFF)
    mixed = (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    # A double has 53 bits of mantissa, so the upper 53 bits become a fraction without rounding.
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
