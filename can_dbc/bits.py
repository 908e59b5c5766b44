"""Extraction: signals cut out of the bytes of many frames at once, one set of array operations per message.  Pure.

The frame data is viewed as 64-bit words.  Every signal lies in one word (at a multiple of 8 bytes, or at the byte
where it starts), except where it straddles 9 bytes: then the last byte is taken apart and joined.  All rows are cut by
one broadcast shift and mask; only signed rows are touched once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from can_dbc.plan import WORD_BITS, Kind, SignalPlan

WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Straddle:
    """Row `row` goes on in byte `at`: its last `missing` bits (big endian), or what follows its first `held` bits."""

    row: int
    at: int
    missing: int
    held: int
    big_endian: bool


class Extraction:
    """Cuts `signals` out of frame data; compiled once, used for every block."""

    def __init__(self, signals: Sequence[SignalPlan]) -> None:
        self._words: list[tuple[int, bool]] = []
        self._straddles: list[_Straddle] = []
        self._rows = len(signals)
        word_of, shifts = [], []
        for row, signal in enumerate(signals):
            offset, shift = self._place(row, signal)
            word = (offset, signal.big_endian)
            if word not in self._words:
                self._words.append(word)
            word_of.append(self._words.index(word))
            shifts.append(shift)
        self._word_of = np.array(word_of, np.intp)
        self._shift = np.array(shifts, np.uint64).reshape(-1, 1)
        self._mask = np.array([(1 << s.bits) - 1 for s in signals], np.uint64).reshape(-1, 1)
        signed = [row for row, s in enumerate(signals) if s.kind is Kind.INT and s.bits < WORD_BITS]
        self._signed = _selector(signed)
        self._sign = np.array([1 << signals[row].bits - 1 for row in signed], np.uint64).reshape(-1, 1)

    def _place(self, row: int, signal: SignalPlan) -> tuple[int, int]:
        """Byte offset of the word for `signal`, and how far to shift it right."""
        first, last = signal.first_bit // 8, (signal.first_bit + signal.bits - 1) // 8
        offset = first - first % WORD_BYTES
        if last >= offset + WORD_BYTES:
            offset = first  # a signal that leaves its word never starts in the last one, so the new word fits
        within = signal.first_bit - 8 * offset
        missing = within + signal.bits - WORD_BITS
        if missing > 0:
            held = WORD_BITS - within
            self._straddles.append(_Straddle(row, offset + WORD_BYTES, missing, held, signal.big_endian))
        if signal.big_endian:
            return offset, max(-missing, 0)
        return offset, within

    def __call__(self, data: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Raw values (signals, n) of frames `data` (n, width): C-contiguous, width 8 or 64."""
        if not self._rows:
            return np.zeros((0, len(data)), np.int64)
        words = [_word(data, offset, big_endian) for offset, big_endian in self._words]
        if len(words) == 1:
            raw = words[0] >> self._shift
        else:
            raw = np.stack(words)[self._word_of]
            raw >>= self._shift
        for straddle in self._straddles:
            _join(raw[straddle.row], data[:, straddle.at], straddle)
        raw &= self._mask
        if len(self._sign):
            signed = raw[self._signed]
            signed ^= self._sign
            signed -= self._sign
            raw[self._signed] = signed
        return raw.view(np.int64)


def _selector(rows: list[int]) -> slice | NDArray[np.intp]:
    """Rows as a slice where they are adjacent (a view, no copy), else as indices."""
    if rows and rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return np.array(rows, np.intp)


def _word(data: NDArray[np.uint8], offset: int, big_endian: bool) -> NDArray[np.uint64]:
    if offset % WORD_BYTES:
        data, offset = np.ascontiguousarray(data[:, offset : offset + WORD_BYTES]), 0
    words = data.view(">u8" if big_endian else "<u8")[:, offset // WORD_BYTES]
    return np.ascontiguousarray(words, dtype=np.uint64)


def _join(raw: NDArray[np.uint64], last: NDArray[np.uint8], straddle: _Straddle) -> None:
    """Add the bits of the ninth byte to one row, in place."""
    byte = last.astype(np.uint64)
    if straddle.big_endian:
        raw <<= np.uint64(straddle.missing)
        raw |= byte >> np.uint64(8 - straddle.missing)
    else:
        raw |= byte << np.uint64(straddle.held)
