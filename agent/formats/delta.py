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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TYPES: Final[dict[int, np.dtype[np.signedinteger]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_WIDTH_VALUES: Final = np.array([0, 1, 2, 4, 8], np.uint8)
_TOGETHER: Final = 32_768  # values: 256 KiB
_IS_WIDTH: Final = np.isin(np.arange(256), _WIDTH_VALUES)
SIGNED: Final = 0x80  # of a wrap: extend by sign
_LIMITS: Final = np.array([0x7F, 0x7FFF, 0x7FFFFFFF], np.int64)  # largest extent of 1, 2, 4 bytes
_SPREADS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)  # largest spread of 0, 1, 2, 4 bytes


def _limits(wrap: int) -> tuple[int, int, int]:
    """Lowest and highest value of a signal that wraps so, and the highest delta that is not better taken round."""
    bits = wrap & ~SIGNED & 0xFF
    if bits in (0, 64) or bits > 64:
        return -(1 << 63), (1 << 63) - 1, (1 << 63) - 1
    half = 1 << bits - 1
    return (-half, half - 1, half - 1) if wrap & SIGNED else (0, 2 * half - 1, half - 1)


_LOWEST, _HIGHEST, _HALF = np.array([_limits(wrap) for wrap in range(256)], np.int64).T


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


def encode(tables: Sequence[NDArray[np.int64]], wraps: Sequence[NDArray[np.uint8]]) -> list[Deltas]:
    """Encode tables of (S, n) values, S and n at least 1, each with the wraps (S,) of its columns where they fit.

    A batch has many small tables: they are worked on together, as many as fit into a processor's cache.
    """
    encoded: list[Deltas] = []
    first = size = 0
    for number, table in enumerate(tables):
        size += table.size
        if size >= _TOGETHER or number == len(tables) - 1:
            encoded += _encode_together(tables[first : number + 1], wraps[first : number + 1])
            first, size = number + 1, 0
    return encoded


def _encode_together(tables: Sequence[NDArray[np.int64]], wraps: Sequence[NDArray[np.uint8]]) -> list[Deltas]:
    values = np.concatenate([table.ravel() for table in tables])
    rows = np.array([len(table) for table in tables])
    counts = np.repeat([table.shape[1] for table in tables], rows)
    columns = _Columns.of(values, counts, np.concatenate(wraps))
    parts: list[list[bytes]] = [[] for _ in tables]
    stops = np.cumsum(rows)
    firsts = (stops - rows).tolist()
    for width, chosen, narrow in columns.residuals():
        ends = np.concatenate(([0], np.cumsum(counts[chosen] - 1)))
        until = np.searchsorted(chosen, stops)
        places = ends[until].tolist()
        planes = narrow.tobytes() if width == 1 else b""
        start = before = 0
        for number, (stop, column) in enumerate(zip(places, until.tolist(), strict=True)):
            if stop > start:
                if width == 1:
                    parts[number].append(planes[start:stop])
                else:
                    parts[number].append(_split_planes(narrow[start:stop].reshape(column - before, -1), width))
            start, before = stop, column
    return [
        Deltas(
            columns.bases[first:stop],
            columns.steps[first:stop],
            columns.widths[first:stop],
            b"".join(residuals),
            columns.wraps[first:stop],
            columns.units[first:stop],
        )
        for first, stop, residuals in zip(firsts, stops.tolist(), parts, strict=True)
    ]


def encode_times(times: Sequence[NDArray[np.int64]]) -> Deltas:
    """Encode columns of times, each (n,) with an n of its own, at least 1, in the coarsest unit that it allows."""
    counts = np.array([len(column) for column in times])
    columns = _Columns.of(np.concatenate(times), counts, np.zeros(len(times), np.uint8), in_units=True)
    parts = []
    for width, chosen, narrow in columns.residuals():
        stops = np.cumsum(counts[chosen] - 1).tolist()
        for start, stop in pairwise([0, *stops]):
            parts.append(_split_planes(narrow[None, start:stop], width))
    return Deltas(columns.bases, columns.steps, columns.widths, b"".join(parts), columns.wraps, columns.units)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """C columns of different lengths, one after another.

    `deltas` (sum of `counts`,): each column's first place holds no delta; the others are (C,), as of `Deltas`.
    """

    deltas: NDArray[np.int64]
    counts: NDArray[np.intp]
    starts: NDArray[np.intp]
    bases: NDArray[np.int64]
    steps: NDArray[np.int64]
    widths: NDArray[np.uint8]
    wraps: NDArray[np.uint8]
    units: NDArray[np.int64]

    @staticmethod
    def of(
        values: NDArray[np.int64], counts: NDArray[np.intp], wraps: NDArray[np.uint8], *, in_units: bool = False
    ) -> "_Columns":
        starts = np.cumsum(counts) - counts
        deltas = np.empty_like(values)
        np.subtract(values[1:], values[:-1], out=deltas[1:])
        _fill_first(deltas, starts, counts)
        units = np.ones(len(counts), np.int64)
        if in_units:
            units = np.maximum(np.gcd.reduceat(deltas, starts), 1)  # below 1: no deltas but 0 and -2^63
            if (units > 1).any():
                deltas //= np.repeat(units, counts)
        if wraps.any():
            fits = np.minimum.reduceat(values, starts) >= _LOWEST[wraps]
            fits &= np.maximum.reduceat(values, starts) <= _HIGHEST[wraps]
            wraps = np.where(fits, wraps, np.uint8(0))
        lowest, highest = np.minimum.reduceat(deltas, starts), np.maximum.reduceat(deltas, starts)
        half = _HALF[wraps]
        around = np.flatnonzero((highest > half) | (lowest < ~half))
        if len(around):  # of what goes round, the short way counts
            places = _places(starts[around], counts[around])
            shift = np.repeat(_shifts(wraps[around])[:, 0], counts[around])
            short = deltas[places] << shift >> shift
            deltas[places] = short
            firsts = np.cumsum(counts[around]) - counts[around]
            lowest[around] = np.minimum.reduceat(short, firsts)
            highest[around] = np.maximum.reduceat(short, firsts)
        spread = highest.view(np.uint64) - lowest.view(np.uint64)
        plain = _signed_widths(lowest, highest)
        centred = _spread_widths(spread)
        middle = lowest + ((spread >> np.uint64(1)) + (spread & np.uint64(1))).view(np.int64)
        steps = np.where(centred < plain, middle, np.int64(0))
        return _Columns(deltas, counts, starts, values[starts], steps, np.minimum(plain, centred), wraps, units)

    def residuals(self) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.signedinteger]]]:
        """By width: the columns of that width, and all their residuals one after another."""
        for width, dtype in _TYPES.items():
            chosen = np.flatnonzero(self.widths == width)
            if len(chosen):
                counts = self.counts[chosen] - 1
                residuals = self.deltas[_places(self.starts[chosen] + 1, counts)]
                if self.steps[chosen].any():
                    residuals -= np.repeat(self.steps[chosen], counts)
                narrow: NDArray[np.signedinteger] = residuals.astype(dtype)
                yield width, chosen, narrow


def _fill_first(deltas: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp]) -> None:
    """Let the first place of each column repeat its second: then it changes no extreme and no common divisor."""
    deltas[starts[counts == 1]] = 0
    longer = starts[counts > 1]
    deltas[longer] = deltas[longer + 1]


def _places(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places of runs of `counts` from `starts` on."""
    stops = np.cumsum(counts)
    places: NDArray[np.intp] = np.repeat(starts - (stops - counts), counts)
    places += np.arange(int(stops[-1]))
    return places


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
