"""Columns of int64 as narrow residuals of their deltas: the numeric heart of a batch, format 2.  Pure.

A column of n values is its first value (`base`), a `step`, and n-1 residuals, in the narrowest of 0, 1, 2, 4 or 8
bytes that holds them all:

    v[0] = base        v[k] = wrap(v[k-1] + unit * (step + residual[k]))

- Width 0 stores nothing: the column is constant or a straight line.
- `step` of values is 0 unless centring the residuals around it makes them narrower.  Of times it is the mean delta: the
  residuals are what the message strays from its period, and small for each message alike.
- `wrap` reduces to as many bits as the signal has, so that an alive counter is a straight line and a checksum takes
  one byte, not two; values that do not fit their signal, and times, wrap at 64 bits.
- `unit` is 1 for values; for times it is the coarsest that all times of the batch allow, since logs and adapters
  seldom count single microseconds.

Residuals of all columns stand together: by ascending width; within a width all lowest bytes first, column after
column, then all second bytes, and so on; little-endian, two's complement.

Invariant: encoding and decoding are exact for every int64 pattern, and no count is believed before it is checked
against the bytes that are there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TYPES: Final[dict[int, np.dtype[np.signedinteger]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_WIDTH_VALUES: Final = np.array([0, 1, 2, 4, 8], np.uint8)
_TOGETHER: Final = 32_768  # values: 256 KiB
_IS_WIDTH: Final = np.isin(np.arange(256), _WIDTH_VALUES)
_TRUSTED: Final = 2.0**52  # a mean delta beyond it is no period
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
    """C encoded columns.

    `bases`, `steps` (C,) int64; `widths` (C,) uint8; `residuals` as the module says; `wraps` (C,) uint8: bits, and
    SIGNED, or 0 for 64 bits; `unit` of all columns.
    """

    bases: NDArray[np.int64]
    steps: NDArray[np.int64]
    widths: NDArray[np.uint8]
    residuals: bytes
    wraps: NDArray[np.uint8]
    unit: int = 1


def encode(tables: Sequence[NDArray[np.int64]], wraps: NDArray[np.uint8]) -> Deltas:
    """Encode the rows of tables of (S, n) values, S and n at least 1, each row with its wrap where it fits.

    A batch has many small tables: they are worked on together, as many as fit into a processor's cache.
    """
    parts: list[_Part] = []
    first = column = size = 0
    for number, table in enumerate(tables):
        size += table.size
        if size >= _TOGETHER or number == len(tables) - 1:
            together = tables[first : number + 1]
            columns = sum(map(len, together))
            parts.append(_encode_together(together, wraps[column : column + columns]))
            first, column, size = number + 1, column + columns, 0
    return Deltas(
        np.concatenate([part.bases for part in parts]),
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.widths for part in parts]),
        _planes([part.narrow for part in parts]),
        np.concatenate([part.wraps for part in parts]),
    )


_Narrow = dict[int, NDArray[np.signedinteger]]
"""By width: the residuals of all columns of that width, one column after another."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some of the columns of Deltas."""

    bases: NDArray[np.int64]
    steps: NDArray[np.int64]
    widths: NDArray[np.uint8]
    narrow: _Narrow
    wraps: NDArray[np.uint8]


def _encode_together(tables: Sequence[NDArray[np.int64]], wraps: NDArray[np.uint8]) -> _Part:
    values = np.concatenate([table.ravel() for table in tables])
    counts = np.repeat([table.shape[1] for table in tables], [len(table) for table in tables])
    starts = np.cumsum(counts) - counts
    if wraps.any():
        fits = np.minimum.reduceat(values, starts) >= _LOWEST[wraps]
        fits &= np.maximum.reduceat(values, starts) <= _HIGHEST[wraps]
        wraps = np.where(fits, wraps, np.uint8(0))
    deltas = _deltas(values, starts, counts)
    lowest, highest = _take_the_short_way(deltas, starts, counts, wraps)
    spread = highest.view(np.uint64) - lowest.view(np.uint64)
    plain = _signed_widths(lowest, highest)
    centred = _spread_widths(spread)
    middle = lowest + ((spread >> np.uint64(1)) + (spread & np.uint64(1))).view(np.int64)
    steps = np.where(centred < plain, middle, np.int64(0))
    widths = np.minimum(plain, centred)
    return _Part(values[starts], steps, widths, _narrow(deltas, starts, counts, steps, widths), wraps)


def encode_times(times: Sequence[NDArray[np.int64]]) -> Deltas:
    """Encode columns of times, each (n,) with an n of its own, at least 1; bases count in units as well."""
    values = np.concatenate(times)
    counts = np.array([len(column) for column in times])
    starts = np.cumsum(counts) - counts
    deltas = _deltas(values, starts, counts)
    unit = int(np.gcd.reduce(np.concatenate((values[starts], deltas))))
    unit = max(unit, 1)  # below 1: nothing but 0 and -2^63
    if unit > 1:
        deltas //= unit
    lasts = values[starts + counts - 1].astype(np.float64)
    mean = (lasts - values[starts]) / unit / np.maximum(counts - 1, 1)
    steps = np.where(np.abs(mean) < _TRUSTED, np.rint(mean), 0.0).astype(np.int64)
    residuals = deltas - np.repeat(steps, counts)
    widths = _signed_widths(np.minimum.reduceat(residuals, starts), np.maximum.reduceat(residuals, starts))
    widths[counts == 1] = 0
    steps[counts == 1] = 0
    zeros = np.zeros(len(times), np.uint8)
    planes = _planes([_narrow(deltas, starts, counts, steps, widths)])
    return Deltas(values[starts] // unit, steps, widths, planes, zeros, unit)


def decode(deltas: Deltas, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values again, (sum of `counts`,), column after column.

    Raises MalformedError; allocates that many only after all is checked.
    """
    if not len(deltas.bases) == len(deltas.steps) == len(deltas.widths) == len(deltas.wraps) == len(counts):
        raise MalformedError("columns of different number")
    if not len(counts):
        if deltas.residuals:
            raise MalformedError("residuals of no columns")
        return np.empty(0, np.int64)
    if (counts < 1).any():
        raise MalformedError("a column of no values")
    if not _IS_WIDTH[deltas.widths].all():
        raise MalformedError("a width that is none of 0, 1, 2, 4, 8 bytes")
    if (deltas.wraps & ~np.uint8(SIGNED) > 64).any() or not 1 <= deltas.unit < 1 << 63:
        raise MalformedError("columns that wrap beyond 64 bits, or of no unit")
    if int((deltas.widths * (counts - 1)).sum()) != len(deltas.residuals):
        raise MalformedError("residuals of another length than their widths and counts say")
    starts = np.cumsum(counts) - counts
    values = np.repeat(deltas.steps, counts)
    for width, chosen, residuals in _wide(deltas.widths, counts, deltas.residuals):
        del width
        values[_places(starts[chosen] + 1, counts[chosen] - 1)] += residuals
    values[starts] = deltas.bases
    if deltas.unit > 1:
        values *= deltas.unit
    np.cumsum(values, out=values)  # across columns, modulo 2^64: what came before a column is taken off again
    before = values[starts] - deltas.bases * deltas.unit
    values -= np.repeat(before, counts)
    _wrap(values, starts, counts, deltas.wraps)
    return values


def _deltas(values: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.int64]:
    """What each value adds to the one before; the first place of a column repeats its second, or is 0.

    So it changes no extreme and no common divisor.
    """
    deltas = np.empty_like(values)
    np.subtract(values[1:], values[:-1], out=deltas[1:])
    deltas[starts[counts == 1]] = 0
    longer = starts[counts > 1]
    deltas[longer] = deltas[longer + 1]
    return deltas


def _take_the_short_way(
    deltas: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp], wraps: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Replace deltas that are shorter round the wrap; lowest and highest of each column (C,)."""
    lowest, highest = np.minimum.reduceat(deltas, starts), np.maximum.reduceat(deltas, starts)
    half = _HALF[wraps]
    around = np.flatnonzero((highest > half) | (lowest < ~half))
    if len(around):
        places = _places(starts[around], counts[around])
        shift = np.repeat(_shifts(wraps[around]), counts[around])
        short = deltas[places] << shift >> shift
        deltas[places] = short
        firsts = np.cumsum(counts[around]) - counts[around]
        lowest[around] = np.minimum.reduceat(short, firsts)
        highest[around] = np.maximum.reduceat(short, firsts)
    return lowest, highest


def _narrow(
    deltas: NDArray[np.int64],
    starts: NDArray[np.intp],
    counts: NDArray[np.intp],
    steps: NDArray[np.int64],
    widths: NDArray[np.uint8],
) -> _Narrow:
    found: _Narrow = {}
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(widths == width)
        if len(chosen):
            residuals = deltas[_places(starts[chosen] + 1, counts[chosen] - 1)]
            if steps[chosen].any():
                residuals -= np.repeat(steps[chosen], counts[chosen] - 1)
            found[width] = residuals.astype(dtype)
    return found


def _planes(parts: Sequence[_Narrow]) -> bytes:
    """The residuals as the module says."""
    planes = []
    for width in _TYPES:
        narrow = [part[width] for part in parts if width in part]
        if narrow:
            planes.append(np.concatenate(narrow).view(np.uint8).reshape(-1, width).T.tobytes())
    return b"".join(planes)


def _wide(
    widths: NDArray[np.uint8], counts: NDArray[np.int64], planes: bytes
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.signedinteger]]]:
    """By width: the columns of that width, and all their residuals one after another."""
    start = 0
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(widths == width)
        stop = start + width * int((counts[chosen] - 1).sum())
        if stop > start:
            joined = np.frombuffer(planes[start:stop], np.uint8).reshape(width, -1).T
            yield width, chosen, np.ascontiguousarray(joined).view(dtype).ravel()
        start = stop


def _places(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places of runs of `counts` from `starts` on."""
    stops = np.cumsum(counts)
    places: NDArray[np.intp] = np.repeat(starts - (stops - counts), counts)
    places += np.arange(int(stops[-1]))
    return places


def _shifts(wraps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(C,): how far to shift left and back to keep the bits that a column wraps at."""
    bits = (wraps & ~np.uint8(SIGNED)).astype(np.int64)
    return np.where(bits == 0, 0, 64 - bits)


def _wrap(
    values: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.int64], wraps: NDArray[np.uint8]
) -> None:
    """Reduce values to the bits of their wraps, in place; looks only into columns that went beyond them."""
    beyond = np.minimum.reduceat(values, starts) < _LOWEST[wraps]
    beyond |= np.maximum.reduceat(values, starts) > _HIGHEST[wraps]
    for signed in (False, True):
        chosen = np.flatnonzero(beyond & ((wraps & np.uint8(SIGNED)).astype(bool) == signed))
        if len(chosen):
            places = _places(starts[chosen], counts[chosen])
            shift = np.repeat(_shifts(wraps[chosen]), counts[chosen])
            left = values[places] << shift
            values[places] = left >> shift if signed else (left.view(np.uint64) >> shift.view(np.uint64)).view(np.int64)


def _signed_widths(lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Width of the signed type that holds lowest..highest; 0 where both are 0."""
    extent = np.maximum(lowest ^ (lowest >> 63), highest ^ (highest >> 63))  # of -129 and 128 alike: 128
    widths = _WIDTH_VALUES[1:][np.searchsorted(_LIMITS, extent)]
    return np.where((lowest == 0) & (highest == 0), np.uint8(0), widths)


def _spread_widths(spread: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Width that holds residuals centred in their spread."""
    return _WIDTH_VALUES[np.searchsorted(_SPREADS, spread)]
