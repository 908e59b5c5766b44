"""Encodes columns of signal values into the data bytes of a message, as the inverse of the decoder.

Pure.  A message is compiled once into spans.  A span is the part of one signal that lies in one 64-bit word of the
data.  All spans of a word are then encoded together, with a few operations on arrays.  Bits that belong to no signal
are zero.

A frame of a multiplexed message carries only the signals that the values of its multiplexers select.  Values of other
signals must be given, too, and must fit into the bits of the signal, but they are not encoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from cantools.database.can import Message, Signal
from numpy.typing import NDArray

_WORD_BITS: Final = 64
_INT64: Final = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Word:
    """Holds the spans of all signals of one byte order in word `index` of the data.

    `signals`, `low`, `mask` and `shift` have one entry for each span.  The entry of `signals` is the row of the span's
    signal.  The raw value of that signal is shifted right by `low`, masked by `mask`, and shifted left by `shift`.  The
    results of all spans are combined into the word by OR.
    """

    index: int
    big_endian: bool
    signals: NDArray[np.intp]
    low: NDArray[np.uint64]
    mask: NDArray[np.uint64]
    shift: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class MessageEncoder:
    """Encodes one message.  Values have one row for each signal, in the order of `signals` and of the database."""

    name: str
    can_id: int
    extended: bool
    fd: bool
    length: int
    signals: tuple[str, ...]
    _scale: NDArray[np.float64]
    _offset: NDArray[np.float64]
    _raw_min: NDArray[np.int64]
    _raw_max: NDArray[np.int64]
    _rounded_min: NDArray[np.float64]
    _rounded_max: NDArray[np.float64]  # the largest double that fits
    _floats: tuple[tuple[int, int], ...]  # (row, bits) of the IEEE floats
    _unsigned64: tuple[int, ...]  # rows whose values go beyond int64
    _selectors: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]  # per signal: (multiplexer, required values)
    _words: tuple[_Word, ...]

    def encode(self, physical: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return the data (n, length) of n frames for physical values (S, n) of S signals.

        Values are rounded to the nearest raw value, as cantools does.

        Raises: ValueError if the bits of a signal cannot hold a value.  Only IEEE floats can hold NaN.
        """
        unscaled = (physical - self._offset[:, None]) / self._scale[:, None]
        rounded = np.rint(unscaled)
        # IEEE floats are not rounded, and they may be infinite or NaN.  They must therefore not reach the check of
        # limits.
        for row, _ in self._floats:
            rounded[row] = 0.0
        fits = (rounded >= self._rounded_min[:, None]) & (rounded <= self._rounded_max[:, None])
        self._require(fits)
        # Values from 2^63 on are converted to unsigned integers first, because int64 would overflow.
        wide = rounded[list(self._unsigned64)].astype(np.uint64)
        rounded[list(self._unsigned64)] = 0.0
        raw = rounded.astype(np.int64)
        raw[list(self._unsigned64)] = wide.view(np.int64)
        for row, bits in self._floats:
            raw[row] = _float_pattern(unscaled[row], bits)
        return self.encode_raw(raw)

    def encode_raw(self, raw: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the data (n, length) of n frames for raw values (S, n) of S signals.

        The raw values have the form in which the decoder returns them: those of unsigned 64-bit signals and of IEEE
        floats are bit patterns.

        Raises: ValueError if there is not one row for each signal, or if the bits of a signal cannot hold a value.  The
        error names that signal.
        """
        if len(raw) != len(self.signals):
            raise ValueError(
                f"{self.name}: {len(raw)} columns were given for {len(self.signals)} signals; pass one for each"
            )
        self._require((raw >= self._raw_min[:, None]) & (raw <= self._raw_max[:, None]))
        unsigned = raw.view(np.uint64)
        present = self._present(raw)
        if present is not None:
            unsigned = np.where(present, unsigned, np.uint64(0))
        words = np.zeros((raw.shape[1], -(-self.length // 8)), np.uint64)
        for word in self._words:
            placed = ((unsigned[word.signals] >> word.low) & word.mask) << word.shift
            content = np.bitwise_or.reduce(placed, axis=0)
            words[:, word.index] |= content.byteswap() if word.big_endian else content
        return np.ascontiguousarray(words.astype("<u8", copy=False).view(np.uint8)[:, : self.length])

    def _require(self, fits: NDArray[np.bool_]) -> None:
        if not fits.all():
            row = int(np.argmin(fits.all(axis=1)))
            raise ValueError(
                f"{self.name}.{self.signals[row]}: a value does not fit into the bits of the signal; "
                "keep all values within its range"
            )

    def _present(self, raw: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return whether each frame holds each signal (S, n), or None if every frame holds every signal."""
        if not any(self._selectors):
            return None
        present = np.ones(raw.shape, np.bool_)
        for row, conditions in enumerate(self._selectors):
            for multiplexer, values in conditions:
                present[row] &= np.isin(raw[multiplexer], values)
        return present


def compile_message(message: Message) -> MessageEncoder:
    """Return the encoder of a cantools message of any length and multiplexing, but not of a container message."""
    signals = message.signals
    rows = {signal.name: row for row, signal in enumerate(signals)}
    limits = [_raw_limits(signal) for signal in signals]
    return MessageEncoder(
        name=message.name,
        can_id=message.frame_id,
        extended=message.is_extended_frame,
        fd=message.is_fd,
        length=message.length,
        signals=tuple(rows),
        _scale=np.array([signal.conversion.scale for signal in signals], np.float64),
        _offset=np.array([signal.conversion.offset for signal in signals], np.float64),
        _raw_min=np.array([_INT64.min if patterned else low for low, _, patterned in limits], np.int64),
        _raw_max=np.array([_INT64.max if patterned else high for _, high, patterned in limits], np.int64),
        _rounded_min=np.array([low for low, _, _ in limits], np.float64),
        _rounded_max=np.array([_double_at_most(high) for _, high, _ in limits], np.float64),
        _floats=tuple((row, signal.length) for row, signal in enumerate(signals) if signal.conversion.is_float),
        _unsigned64=tuple(row for row, (_, high, _) in enumerate(limits) if high > _INT64.max),
        _selectors=tuple(_conditions(signal, signals, rows) for signal in signals),
        _words=_compile_words(signals),
    )


def _raw_limits(signal: Signal) -> tuple[int, int, bool]:
    """Return (lowest, highest, is_pattern) of the integers that the signal's bits can hold.

    If the highest integer exceeds int64, `is_pattern` is True, and int64 raw values are read as unsigned bit patterns.
    """
    if signal.is_signed and not signal.conversion.is_float:
        return -(1 << signal.length - 1), (1 << signal.length - 1) - 1, False
    high = (1 << signal.length) - 1
    return 0, high, high > _INT64.max


def _double_at_most(integer: int) -> float:
    double = float(integer)
    return double if int(double) <= integer else float(np.nextafter(double, 0.0))


def _conditions(
    signal: Signal, signals: Sequence[Signal], rows: dict[str, int]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return the conditions under which a frame holds the signal, as (row of a multiplexer, selecting values) pairs.

    All conditions must hold.  The signal's multiplexer may itself be multiplexed (extended multiplexing, SG_MUL_VAL_),
    so the conditions of the multiplexer are included.
    """
    if signal.multiplexer_signal is None:
        return ()
    row = rows[signal.multiplexer_signal]
    return ((row, tuple(signal.multiplexer_ids or ())), *_conditions(signals[row], signals, rows))


def _compile_words(signals: Sequence[Signal]) -> tuple[_Word, ...]:
    spans: dict[tuple[int, bool], list[tuple[int, int, int, int]]] = {}
    for row, signal in enumerate(signals):
        big_endian = signal.byte_order == "big_endian"
        for index, low, bits, shift in _spans(signal.start, signal.length, big_endian=big_endian):
            spans.setdefault((index, big_endian), []).append((row, low, (1 << bits) - 1, shift))
    words = []
    for (index, big_endian), found in sorted(spans.items()):
        rows, lows, masks, shifts = zip(*found, strict=True)
        column = [np.array(values, np.uint64)[:, None] for values in (lows, masks, shifts)]
        words.append(_Word(index, big_endian, np.array(rows, np.intp), *column))
    return tuple(words)


def _spans(start: int, length: int, *, big_endian: bool) -> list[tuple[int, int, int, int]]:
    """Return (word, lowest bit of the value, number of bits, shift within the word) for each word of a signal.

    `start` is the DBC start bit: the least significant bit of a little-endian signal, or the most significant bit of a
    big-endian signal.  The bits of a big-endian signal are not consecutive in the DBC's numbering.  They are therefore
    renumbered from bit 7 of byte 0 on, which makes them consecutive.  The shift of a big-endian span is the number of
    bits between its end and the end of the word.
    """
    first = 8 * (start // 8) + 7 - start % 8 if big_endian else start
    found = []
    for index in range(first // _WORD_BITS, (first + length - 1) // _WORD_BITS + 1):
        begin = max(first, index * _WORD_BITS)
        end = min(first + length, (index + 1) * _WORD_BITS)
        if big_endian:
            found.append((index, first + length - end, end - begin, (index + 1) * _WORD_BITS - end))
        else:
            found.append((index, begin - first, end - begin, begin - index * _WORD_BITS))
    return found


def _float_pattern(values: NDArray[np.float64], bits: int) -> NDArray[np.int64]:
    kind, pattern = {16: ("f2", "u2"), 32: ("f4", "u4"), 64: ("f8", "u8")}[bits]
    return values.astype(kind).view(pattern).astype(np.uint64).view(np.int64)
