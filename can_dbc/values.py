"""Converts raw integers to physical values, and to the keys under which value tables list them.  Pure.

Raw values are int64 everywhere.  Unsigned 64-bit values and IEEE floats are kept as bit patterns.  Only this file turns
raw values into numbers, for the decoder on the vehicle as well as for the lake, so both get the same bits.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

WORD_BITS: Final = 64


class Kind(IntEnum):
    """Says how the bits of a raw integer are read.

    The numbers of the kinds travel in batches (telemetry.proto), so they never change.
    """

    UINT = 1
    INT = 2
    FLOAT16 = 3
    FLOAT32 = 4
    FLOAT64 = 5


FLOAT_OF_BITS: Final[Mapping[int, Kind]] = {16: Kind.FLOAT16, 32: Kind.FLOAT32, 64: Kind.FLOAT64}
"""The kind of an IEEE float by its number of bits."""


class Scaled(Protocol):
    """A signal with the properties that are needed to convert its raw values."""

    @property
    def kind(self) -> Kind:
        """Return the type of the raw values: unsigned, signed, or a float of 16, 32 or 64 bits."""

    @property
    def scale(self) -> float:
        """Return the factor by which values are multiplied."""

    @property
    def offset(self) -> float:
        """Return the number that is added after scaling."""


_FLOATS: Final[Mapping[Kind, tuple[type[np.unsignedinteger], type[np.floating]]]] = {
    Kind.FLOAT16: (np.uint16, np.float16),
    Kind.FLOAT32: (np.uint32, np.float32),
    Kind.FLOAT64: (np.uint64, np.float64),
}
_FAR: Final = 2.0**62  # beyond every key of a value table


def floating(kind: Kind, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return raw values as float64 numbers, before scale and offset (same shape)."""
    if kind in _FLOATS:
        pattern, floats = _FLOATS[kind]
        return raw.astype(pattern).view(floats).astype(np.float64)
    if kind is Kind.UINT:
        return raw.view(np.uint64).astype(np.float64)
    return raw.astype(np.float64)


def physical(signal: Scaled, raw: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return physical values (same shape): raw * scale + offset in float64.

    The result equals that of cantools to the last bit, with two exceptions.  Both occur only if scale and offset are
    whole numbers, because cantools then computes with Python integers.

    - If raw * scale exceeds 2^53, the last bit may differ: cantools' exact result is rounded once, but here raw
      and the product are rounded before the offset is added.
    - If the result is zero, cantools' zero has no sign.  Here it is -0.0 if the product and the offset are -0.0.
    """
    with np.errstate(all="ignore"):  # the infinities and NaNs of IEEE signals are values, not mistakes
        return floating(signal.kind, raw) * signal.scale + signal.offset


def text_keys(signal: Scaled, raw: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the value-table key of each raw value: the raw value itself, or the whole part of an IEEE float."""
    if signal.kind not in _FLOATS:
        return raw
    with np.errstate(invalid="ignore"):  # signalling NaNs are values as well
        # A value table has no key for infinities and NaNs, so they become a number beyond all keys.
        values = np.nan_to_num(floating(signal.kind, raw), nan=-_FAR, posinf=_FAR, neginf=-_FAR)
    return np.clip(values, -_FAR, _FAR).astype(np.int64)
