"""What a raw integer means: its kind, its physical value, and the key under which a value table lists it.  Pure.

Raw values are int64 everywhere: unsigned 64-bit values and IEEE floats as their bit pattern.  This is the only place
that turns them into numbers, for the decoder on the vehicle as well as for the lake, so that both give the same bits.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

WORD_BITS: Final = 64


class Kind(IntEnum):
    """How the bits of a raw integer are read.  The numbers travel in batches (telemetry.proto): they never change."""

    UINT = 1
    INT = 2
    FLOAT16 = 3
    FLOAT32 = 4
    FLOAT64 = 5


class Scaled(Protocol):
    """The properties of a signal that reading its raw values needs."""

    @property
    def kind(self) -> Kind:
        """How the bits of its raw values are read."""

    @property
    def scale(self) -> float:
        """The factor."""

    @property
    def offset(self) -> float:
        """The addend."""


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

    The result equals that of cantools to the last bit, except where cantools multiplies Python integers because scale
    and offset are whole numbers: where raw * scale is beyond 2^53 cantools rounds later, and the two may differ in the
    last bit; where the result is zero, the zero of cantools has no sign, while float64 gives -0.0 if the product and
    the offset are -0.0.
    """
    with np.errstate(all="ignore"):  # the infinities and NaNs of IEEE signals are values, not mistakes
        return floating(signal.kind, raw) * signal.scale + signal.offset


def text_keys(signal: Scaled, raw: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what to look up in a value table for each raw value: itself, or the whole part of an IEEE float."""
    if signal.kind not in _FLOATS:
        return raw
    with np.errstate(invalid="ignore"):  # signalling NaNs are values as well
        # A value table has no key for infinities and NaNs: they become a number beyond all keys.
        values = np.nan_to_num(floating(signal.kind, raw), nan=-_FAR, posinf=_FAR, neginf=-_FAR)
    return np.clip(values, -_FAR, _FAR).astype(np.int64)
