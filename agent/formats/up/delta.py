"""Columns of int64 as narrow residuals of their deltas: the numeric heart of a batch.  Pure.

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

Invariant: encoding and decoding are exact for every int64 pattern, and no count is trusted before it is checked
against the number of bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TYPES: Final[dict[int, np.dtype[np.signedinteger]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_WIDTH_VALUES: Final = np.array([0, 1, 2, 4, 8], np.uint8)
_IS_WIDTH: Final = np.isin(np.arange(256), _WIDTH_VALUES)
_TRUSTED: Final = 2.0**52  # a mean delta beyond it is no period
_FEW: Final = 64  # deltas that tell the unit of all, mostly
_ONE: Final = np.uint64(1)
SIGNED: Final = 0x80  # of a wrap: extend by sign
_LIMITS: Final = np.array([0x7F, 0x7FFF, 0x7FFFFFFF], np.int64)  # largest extent of 1, 2, 4 bytes
_SPREADS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)  # largest spread of 0, 1, 2, 4 bytes


def _limits(wrap: int) -> tuple[int, int, int]:
    """Return lowest and highest value of a signal with this wrap, and how far to shift to keep its bits only."""
    bits = wrap & ~SIGNED & 0xFF
    if bits in (0, 64) or bits > 64:
        return -(1 << 63), (1 << 63) - 1, 0
    half = 1 << bits - 1
    return (-half, half - 1, 64 - bits) if wrap & SIGNED else (0, 2 * half - 1, 64 - bits)


_LOWEST, _HIGHEST, _SHIFTS = np.ascontiguousarray(np.array([_limits(wrap) for wrap in range(256)], np.int64).T)


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


def int64(value: int) -> int:
    """Return the value modulo 2^64, as int64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def encode(tables: Sequence[NDArray[np.int64]], wraps: NDArray[np.uint8]) -> Deltas:
    """Encode the rows of tables of (S, n) values, S and n at least 1, each row with its wrap where it fits.

    A batch has many small tables: they are worked on together.
    """
    values = np.concatenate([table.ravel() for table in tables])
    counts = np.array([table.shape[1] for table in tables]).repeat([len(table) for table in tables])
    starts = counts.cumsum() - counts
    bases = values.take(starts)
    lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    wraps = wraps * ((lowest >= _LOWEST.take(wraps)) & (highest <= _HIGHEST.take(wraps)))
    steps, widths = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.uint8)
    # Most signals never change within a window, so the rest of the work leaves them out.
    changing = (lowest != highest).nonzero()[0]
    if not len(changing):
        return Deltas(bases, steps, widths, b"", wraps)
    if len(changing) < len(counts):
        first, counts = starts.take(changing), counts.take(changing)
        places = zip(first.tolist(), (first + counts).tolist(), strict=True)
        values = np.concatenate([values[start:stop] for start, stop in places])
        starts = counts.cumsum() - counts
    deltas = _deltas(values, starts, counts)
    # Where the way round the wrap is shorter (an alive counter from 15 to 0), the delta takes it.
    shift = _SHIFTS.take(wraps.take(changing)).repeat(counts)
    deltas <<= shift
    deltas >>= shift
    lowest, highest = np.minimum.reduceat(deltas, starts), np.maximum.reduceat(deltas, starts)
    narrowest = _signed_widths(lowest, highest)
    spread = (highest - lowest).view(np.uint64)
    centred = _WIDTH_VALUES.take(_SPREADS.searchsorted(spread))
    shifted = centred < narrowest
    if shifted.any():
        middle = lowest + (spread - (spread >> _ONE)).view(np.int64)
        middle *= shifted
        deltas -= middle.repeat(counts)
        steps[changing] = middle
        narrowest = np.minimum(narrowest, centred)
    widths[changing] = narrowest
    return Deltas(bases, steps, widths, _planes(deltas, starts, counts, narrowest), wraps)


def encode_times(times: Sequence[NDArray[np.int64]], origin: int) -> Deltas:
    """Encode columns of times relative to `origin`; each column is (n,) with its own n >= 1.  Bases are in units."""
    values = np.concatenate(times)
    counts = np.array([len(column) for column in times])
    stops = counts.cumsum()
    starts = stops - counts
    bases, lasts = values.take(starts) - origin, (values.take(stops - 1) - origin).astype(np.float64)
    deltas = _deltas(values, starts, counts)
    unit, deltas = _in_units(bases, deltas)
    mean = (lasts - bases) / unit / np.maximum(counts - 1, 1)
    if unit > 1:
        bases //= unit
    steps = np.where(np.abs(mean) < _TRUSTED, np.rint(mean), 0.0).astype(np.int64)
    deltas -= steps.repeat(counts)
    widths = _signed_widths(np.minimum.reduceat(deltas, starts), np.maximum.reduceat(deltas, starts))
    return Deltas(bases, steps, widths, _planes(deltas, starts, counts, widths), np.zeros(len(times), np.uint8), unit)


def decode(deltas: Deltas, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values again, (sum of `counts`,), column after column.

    Memory for them is allocated only after everything is checked.  Raises MalformedError.
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
    """Return the difference of each value to the one before; the first of a column repeats the second, or is 0.

    In this way the first place changes no extreme and no common divisor.
    """
    deltas = np.empty_like(values)
    np.subtract(values[1:], values[:-1], out=deltas[1:])
    several = counts > 1
    deltas[starts] = deltas.take(starts + several) * several
    return deltas


def _in_units(bases: NDArray[np.int64], deltas: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Return the largest number that divides all bases and deltas, at least 1, and `deltas` divided by it."""
    of_bases = np.gcd.reduce(bases)
    # The first few deltas mostly tell the unit.  Checking that it divides all is faster than finding it from all.
    unit = int(np.gcd(of_bases, np.gcd.reduce(deltas[:_FEW])))
    if unit == 1:
        return 1, deltas
    if unit > 1:
        divided = deltas // unit
        if (divided * unit == deltas).all():
            return unit, divided
    unit = max(int(np.gcd(of_bases, np.gcd.reduce(deltas))), 1)  # below 1: nothing but 0 and -2^63
    return unit, deltas // unit


def _planes(
    residuals: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp], widths: NDArray[np.uint8]
) -> bytes:
    """Return the residuals as the module says; those in the first place of each column do not count."""
    places: dict[int, list[tuple[int, int]]] = {width: [] for width in (0, *_TYPES)}
    for width, start, stop in zip(widths.tolist(), (starts + 1).tolist(), (starts + counts).tolist(), strict=True):
        places[width].append((start, stop))
    planes = []
    for width, dtype in _TYPES.items():
        if places[width]:
            narrow = residuals.astype(dtype)  # converting all is faster than picking out those of this width
            joined = np.concatenate([narrow[start:stop] for start, stop in places[width]])
            planes.append(joined.view(np.uint8).reshape(-1, width).T.tobytes())
    return b"".join(planes)


def _wide(
    widths: NDArray[np.uint8], counts: NDArray[np.int64], planes: bytes
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.signedinteger]]]:
    """Yield for each width the columns of that width, and all their residuals one after another."""
    start = 0
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(widths == width)
        stop = start + width * int((counts[chosen] - 1).sum())
        if stop > start:
            joined = np.frombuffer(planes[start:stop], np.uint8).reshape(width, -1).T
            yield width, chosen, np.ascontiguousarray(joined).view(dtype).ravel()
        start = stop


def _places(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the places of runs of `counts` from `starts` on."""
    stops = np.cumsum(counts)
    places: NDArray[np.intp] = np.repeat(starts - (stops - counts), counts)
    places += np.arange(int(stops[-1]))
    return places


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
            shift = np.repeat(_SHIFTS[wraps[chosen]], counts[chosen])
            left = values[places] << shift
            values[places] = left >> shift if signed else (left.view(np.uint64) >> shift.view(np.uint64)).view(np.int64)


def _signed_widths(lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the width of the signed type that holds lowest to highest; 0 where both are 0."""
    extent = np.maximum(highest, ~lowest)  # of -129 and 128 alike: 128
    widths: NDArray[np.uint8] = _WIDTH_VALUES[1:].take(_LIMITS.searchsorted(extent))
    widths *= (lowest | highest) != 0
    return widths
