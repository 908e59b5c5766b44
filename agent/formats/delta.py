"""Columns of int64 as narrow residuals of their deltas: the numeric heart of a batch.  Pure.

A column of n values is its first value (`base`), a `step`, and n-1 residuals, in the narrowest of 0, 1, 2, 4 or 8
bytes that holds them all:

    v[0] = base        v[k] = wrap(v[k-1] + unit * (step + residual[k]))

- Width 0 stores nothing: the column is constant or a straight line.
- `step` is 0 unless centring the residuals around it makes them narrower: the times of a 10 ms message then take one
  or two bytes.
- `wrap` reduces to as many bits as the signal has, so that an alive counter is a straight line and a checksum takes
  one byte, not two; values that do not fit their signal, and times, wrap at 64 bits.
- `unit` is 1 but for times that were recorded more coarsely than in microseconds.

Residuals are little-endian, byte planes apart (all lowest bytes first), since zstd finds the repetition within a
plane; columns stand by ascending width, within a width in their order.

Invariant: encoding and decoding are exact for every int64 pattern, and no count is believed before it is checked
against the bytes that are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TYPES: Final[dict[int, np.dtype[np.signedinteger]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_WIDTH_VALUES: Final = np.array([0, 1, 2, 4, 8], np.uint8)
_IS_WIDTH: Final = np.isin(np.arange(256), _WIDTH_VALUES)
SIGNED: Final = 0x80  # of a wrap: extend by sign
_LIMITS: Final = np.array([0x7F, 0x7FFF, 0x7FFFFFFF], np.int64)  # largest extent of 1, 2, 4 bytes
_SPREADS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)  # largest spread of 0, 1, 2, 4 bytes


class MalformedError(ValueError):
    """Counts, widths and bytes contradict each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Deltas:
    """S encoded columns.

    `bases`, `steps` (S,) int64; `widths` (S,) uint8; `residuals` as the module says; `wraps` (S,) uint8: bits, and
    SIGNED, or 0 for 64 bits; `units` (S,) int64.
    """

    bases: NDArray[np.int64]
    steps: NDArray[np.int64]
    widths: NDArray[np.uint8]
    residuals: bytes
    wraps: NDArray[np.uint8]
    units: NDArray[np.int64]


def encode(columns: NDArray[np.int64], wraps: NDArray[np.uint8]) -> Deltas:
    """Encode (S, n) values, n at least 1, that wrap at `wraps` (S,) where they fit."""
    wraps = np.where((_wrapped(columns, wraps) == columns).all(axis=1), wraps, np.uint8(0))
    shift = _shifts(wraps)
    return _encode(columns[:, 0], (columns[:, 1:] - columns[:, :-1]) << shift >> shift, wraps, 1)


def encode_times(times: NDArray[np.int64]) -> Deltas:
    """Encode one column of (n,) times, n at least 1, in the coarsest unit that they allow."""
    deltas = times[1:] - times[:-1]
    unit = max(int(np.gcd.reduce(deltas)), 1) if len(deltas) else 1  # below 1: no deltas but 0 and -2^63
    return _encode(times[:1], deltas[None, :] // unit, np.zeros(1, np.uint8), unit)


def _encode(bases: NDArray[np.int64], deltas: NDArray[np.int64], wraps: NDArray[np.uint8], unit: int) -> Deltas:
    units = np.full(len(bases), unit, np.int64)
    if not deltas.shape[1]:
        return Deltas(bases, np.zeros_like(bases), np.zeros(len(bases), np.uint8), b"", wraps, units)
    lowest, highest = deltas.min(axis=1), deltas.max(axis=1)
    spread = highest.view(np.uint64) - lowest.view(np.uint64)
    plain = _signed_widths(lowest, highest)
    centred = _spread_widths(spread)
    middle = lowest + ((spread >> np.uint64(1)) + (spread & np.uint64(1))).view(np.int64)
    steps = np.where(centred < plain, middle, np.int64(0))
    widths = np.minimum(plain, centred)
    planes = []
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(widths == width)
        if len(chosen):
            narrow = (deltas[chosen] - steps[chosen, None]).astype(dtype)
            planes.append(_split_planes(narrow, width))
    return Deltas(bases, steps, widths, b"".join(planes), wraps, units)


def decode(deltas: Deltas, count: int) -> NDArray[np.int64]:
    """The (S, count) values again.  Raises MalformedError; allocates S * count * 8 bytes only after all is checked."""
    if count < 1:
        raise MalformedError("a column of no values")
    if not _IS_WIDTH[deltas.widths].all():
        raise MalformedError("a width that is none of 0, 1, 2, 4, 8 bytes")
    if (deltas.wraps & ~np.uint8(SIGNED) > 64).any() or (deltas.units < 1).any():
        raise MalformedError("a column that wraps beyond 64 bits, or of no unit")
    rows = count - 1
    if int(deltas.widths.sum(dtype=np.int64)) * rows != len(deltas.residuals):
        raise MalformedError("residuals of another length than their widths and counts say")
    values = np.empty((len(deltas.bases), count), np.int64)
    values[:, 1:] = deltas.steps[:, None]
    start = 0
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(deltas.widths == width)
        stop = start + len(chosen) * rows * width
        if stop > start:
            values[chosen, 1:] += _join_planes(deltas.residuals[start:stop], len(chosen), rows, dtype)
        start = stop
    if (deltas.units > 1).any():
        values[:, 1:] *= deltas.units[:, None]
    values[:, 0] = deltas.bases
    np.cumsum(values, axis=1, out=values)
    return _wrapped(values, deltas.wraps)


def patterns(pairs: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """The bit patterns of float64 pairs: unlike the numbers, they tell 0.0 from -0.0 and are equal to themselves."""
    bits = np.array(pairs, np.float64).reshape(-1, 2).view(np.int64)
    return [(first, second) for first, second in bits.tolist()]


def split_bytes(bits: Sequence[int]) -> bytes:
    """Float64 bit patterns with their byte planes apart."""
    return _split_planes(np.array([bits], "<i8"), 8)


def join_bytes(planes: bytes) -> list[float]:
    """The numbers of `split_bytes`.  Raises MalformedError."""
    if len(planes) % 8:
        raise MalformedError("float64 numbers of a length that 8 does not divide")
    numbers: list[float] = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<f8").ravel().tolist()
    return numbers


def _shifts(wraps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(S, 1): how far to shift left and back to keep the bits that a column wraps at."""
    bits = (wraps & ~np.uint8(SIGNED)).astype(np.int64)
    return np.where(bits == 0, 0, 64 - bits)[:, None]


def _wrapped(values: NDArray[np.int64], wraps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(S, n) values reduced to the bits of their wraps."""
    if not wraps.any():
        return values
    shift = _shifts(wraps)
    left = values << shift
    by_sign, by_zeros = left >> shift, (left.view(np.uint64) >> shift.view(np.uint64)).view(np.int64)
    return np.where((wraps & np.uint8(SIGNED)).astype(bool)[:, None], by_sign, by_zeros)


def _signed_widths(lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Width of the signed type that holds lowest..highest; 0 where both are 0."""
    extent = np.maximum(lowest ^ (lowest >> 63), highest ^ (highest >> 63))  # of -129 and 128 alike: 128
    widths = _WIDTH_VALUES[1:][np.searchsorted(_LIMITS, extent)]
    return np.where((lowest == 0) & (highest == 0), np.uint8(0), widths)


def _spread_widths(spread: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Width that holds residuals centred in their spread."""
    return _WIDTH_VALUES[np.searchsorted(_SPREADS, spread)]


def _split_planes(narrow: NDArray[np.generic], width: int) -> bytes:
    rows, count = narrow.shape
    return np.ascontiguousarray(narrow).view(np.uint8).reshape(rows, count, width).transpose(0, 2, 1).tobytes()


def _join_planes(planes: bytes, rows: int, count: int, dtype: np.dtype[np.signedinteger]) -> NDArray[np.signedinteger]:
    joined = np.frombuffer(planes, np.uint8).reshape(rows, dtype.itemsize, count).transpose(0, 2, 1)
    return np.ascontiguousarray(joined).view(dtype).reshape(rows, count)
