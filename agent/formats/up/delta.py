"""Encode and decode columns of int64 as narrow residuals of their deltas.  Pure.

A column of n values is stored as its first value (`base`), a `step`, and n-1 residuals:

    v[0] = unit * base        v[k] = wrap(v[k-1] + unit * (step + residual[k]))

- All residuals of a column have the same width: the narrowest of 0, 1, 2, 4 or 8 bytes that holds each of them.  Width
  0 stores no residuals, because the column is constant or a straight line.
- `step` depends on the kind of column.  For values it is 0, unless the middle between the lowest and the highest delta
  makes the residuals narrower.  For times it is the mean delta, so the residuals are small deviations of a message from
  its period.
- `wrap` keeps only as many bits as the signal has.  An alive counter is then a straight line, and a checksum takes one
  byte and not two.  Times, and columns with a value that does not fit its signal, wrap at 64 bits.
- `unit` is 1 for values.  For times it is the largest number of microseconds that divides all times of the batch
  (counted from an origin), because logs and adapters seldom count single microseconds.

The residuals of all columns are stored together, by ascending width, little-endian, in two's complement.  Within a
width, the lowest bytes of all columns come first, column after column, then all second bytes, and so on.

Invariant: encoding and decoding are exact for every int64 pattern, and every count is checked against the number of
bytes before it is used.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_TYPES: Final[dict[int, np.dtype[np.signedinteger]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}
_WIDTH_VALUES: Final = np.array([0, 1, 2, 4, 8], np.uint8)
_IS_WIDTH: Final = np.isin(np.arange(256), _WIDTH_VALUES)
_TRUSTED: Final = 2.0**52  # a mean delta of this size or more is not a period
_FEW: Final = 64  # this many deltas usually suffice to find the unit of all
_ONE: Final = np.uint64(1)
SIGNED: Final = 0x80  # this bit of a wrap means that the signal is signed
_LIMITS: Final = np.array([0x7F, 0x7FFF, 0x7FFFFFFF], np.int64)  # largest signed value in 1, 2, 4 bytes
_SPREADS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)  # largest difference of values in 0, 1, 2, 4 bytes


def _limits(wrap: int) -> tuple[int, int, int]:
    """Return the lowest and the highest value of a signal with this wrap, and the number of unused bits out of 64."""
    bits = wrap & ~SIGNED & 0xFF
    if bits in (0, 64) or bits > 64:
        return -(1 << 63), (1 << 63) - 1, 0
    half = 1 << bits - 1
    return (-half, half - 1, 64 - bits) if wrap & SIGNED else (0, 2 * half - 1, 64 - bits)


_LOWEST, _HIGHEST, _SHIFTS = np.ascontiguousarray(np.array([_limits(wrap) for wrap in range(256)], np.int64).T)


class MalformedError(ValueError):
    """Raised for malformed encoded data, for example if counts and bytes contradict each other."""


class Deltas(msgspec.Struct, frozen=True, eq=False):
    """Holds C encoded columns, as the text of this module describes them.

    `bases`, `steps`, `widths` (in bytes) and `wraps` have the shape (C,).  A wrap is a number of bits, with SIGNED set
    for a signed signal; 0 means 64 bits.  `unit` is the same for all columns.
    """

    bases: NDArray[np.int64]
    steps: NDArray[np.int64]
    widths: NDArray[np.uint8]
    residuals: bytes
    wraps: NDArray[np.uint8]
    unit: int = 1


def int64(value: int) -> int:
    """Return `value` modulo 2^64, as a signed number of 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def encode(tables: Sequence[NDArray[np.int64]], wraps: NDArray[np.uint8]) -> Deltas:
    """Encode each row of `tables` as a column; a table has (S, n) values, with S and n at least 1.

    `wraps` has the wrap of each row.  A row with a value that does not fit its wrap gets the wrap 0.  All tables are
    encoded together, because a batch has many small tables.
    """
    values = np.concatenate([table.ravel() for table in tables])
    counts = np.array([table.shape[1] for table in tables]).repeat([len(table) for table in tables])
    starts = counts.cumsum() - counts
    bases = values.take(starts)
    lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    wraps = wraps * ((lowest >= _LOWEST.take(wraps)) & (highest <= _HIGHEST.take(wraps)))
    steps, widths = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.uint8)
    # Most signals never change within a window, so only the changing columns are encoded further.
    changing = (lowest != highest).nonzero()[0]
    if not len(changing):
        return Deltas(bases, steps, widths, b"", wraps)
    if len(changing) < len(counts):
        first, counts = starts.take(changing), counts.take(changing)
        places = zip(first.tolist(), (first + counts).tolist(), strict=True)
        values = np.concatenate([values[start:stop] for start, stop in places])
        starts = counts.cumsum() - counts
    deltas = _deltas(values, starts, counts)
    # Of the two deltas around the wrap, the shorter one is used, for example when an alive counter goes from 15 to 0.
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
    """Encode columns of times.  Each column has a length of its own, at least 1.

    The bases are counted from `origin`, in multiples of the unit.
    """
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
    """Return the decoded values of all columns, one column after another, in one array (sum of `counts`,).

    Memory for the values is allocated only after all checks.

    Raises: MalformedError if `deltas` and `counts` contradict each other.
    """
    if not len(deltas.bases) == len(deltas.steps) == len(deltas.widths) == len(deltas.wraps) == len(counts):
        raise MalformedError("the numbers of bases, steps, widths, wraps and counts differ")
    if not len(counts):
        if deltas.residuals:
            raise MalformedError("there are residuals but no columns")
        return np.empty(0, np.int64)
    if (counts < 1).any():
        raise MalformedError("a column has no values")
    if not _IS_WIDTH[deltas.widths].all():
        raise MalformedError("a width is not 0, 1, 2, 4 or 8 bytes")
    if (deltas.wraps & ~np.uint8(SIGNED) > 64).any() or not 1 <= deltas.unit < 1 << 63:
        raise MalformedError("a wrap is above 64 bits, or the unit is out of range")
    if int((deltas.widths * (counts - 1)).sum()) != len(deltas.residuals):
        raise MalformedError("the length of the residuals does not match their widths and counts")
    starts = np.cumsum(counts) - counts
    values = np.repeat(deltas.steps, counts)
    for width, chosen, residuals in _wide(deltas.widths, counts, deltas.residuals):
        del width
        values[_places(starts[chosen] + 1, counts[chosen] - 1)] += residuals
    values[starts] = deltas.bases
    if deltas.unit > 1:
        values *= deltas.unit
    np.cumsum(values, out=values)  # the sum runs across columns, modulo 2^64, so subtract the sum before each column
    before = values[starts] - deltas.bases * deltas.unit
    values -= np.repeat(before, counts)
    _wrap(values, starts, counts, deltas.wraps)
    return values


def _deltas(values: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the difference of each value to the value before it in its column.

    The first value of a column has no value before it.  Its difference is a copy of the second value's difference, or 0
    if the column has only one value.  A copy changes neither the extremes nor the common divisor of the differences.
    """
    deltas = np.empty_like(values)
    np.subtract(values[1:], values[:-1], out=deltas[1:])
    several = counts > 1
    deltas[starts] = deltas.take(starts + several) * several
    return deltas


def _in_units(bases: NDArray[np.int64], deltas: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Return the greatest common divisor of all bases and deltas (at least 1), and the deltas divided by it."""
    of_bases = np.gcd.reduce(bases)
    # The first few deltas usually suffice to find the unit.  Checking it with all deltas is faster than finding it
    # from all deltas.
    unit = int(np.gcd(of_bases, np.gcd.reduce(deltas[:_FEW])))
    if unit == 1:
        return 1, deltas
    if unit > 1:
        divided = deltas // unit
        if (divided * unit == deltas).all():
            return unit, divided
    unit = max(int(np.gcd(of_bases, np.gcd.reduce(deltas))), 1)  # gcd is below 1 if all are 0 or -2^63
    return unit, deltas // unit


def _planes(
    residuals: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.intp], widths: NDArray[np.uint8]
) -> bytes:
    """Return the residuals as bytes, in the order that the text of this module describes.

    The first element of each column is left out, because `bases` has the first value.
    """
    places: dict[int, list[tuple[int, int]]] = {width: [] for width in (0, *_TYPES)}
    for width, start, stop in zip(widths.tolist(), (starts + 1).tolist(), (starts + counts).tolist(), strict=True):
        places[width].append((start, stop))
    planes = []
    for width, dtype in _TYPES.items():
        if places[width]:
            narrow = residuals.astype(dtype)  # converting all residuals is faster than selecting first
            joined = np.concatenate([narrow[start:stop] for start, stop in places[width]])
            planes.append(joined.view(np.uint8).reshape(-1, width).T.tobytes())
    return b"".join(planes)


def _wide(
    widths: NDArray[np.uint8], counts: NDArray[np.int64], planes: bytes
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.signedinteger]]]:
    """Yield each width above 0 that occurs, with the indices and the residuals of its columns.

    The residuals of all columns of a width are in one array, column after column.
    """
    start = 0
    for width, dtype in _TYPES.items():
        chosen = np.flatnonzero(widths == width)
        stop = start + width * int((counts[chosen] - 1).sum())
        if stop > start:
            joined = np.frombuffer(planes[start:stop], np.uint8).reshape(width, -1).T
            yield width, chosen, np.ascontiguousarray(joined).view(dtype).ravel()
        start = stop


def _places(starts: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the indices of consecutive elements: for each i, `counts[i]` indices from `starts[i]` on.

    For example, starts 5, 9 and counts 2, 3 give 5, 6, 9, 10, 11.
    """
    stops = np.cumsum(counts)
    places: NDArray[np.intp] = np.repeat(starts - (stops - counts), counts)
    places += np.arange(int(stops[-1]))
    return places


def _wrap(
    values: NDArray[np.int64], starts: NDArray[np.intp], counts: NDArray[np.int64], wraps: NDArray[np.uint8]
) -> None:
    """Reduce each value, in place, to the number of bits of its column's wrap.

    Columns whose values all fit are not touched.
    """
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
    """Return the width in bytes of the signed type that holds `lowest` to `highest`; 0 if both are 0."""
    extent = np.maximum(highest, ~lowest)  # both -129 and 128 have the extent 128
    widths: NDArray[np.uint8] = _WIDTH_VALUES[1:].take(_LIMITS.searchsorted(extent))
    widths *= (lowest | highest) != 0
    return widths
