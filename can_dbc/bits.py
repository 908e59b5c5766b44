"""Extracts the signals of a message from many frames at once, with one set of array operations.  Pure.

The frame data is read as 64-bit words.  Each word is read, and byte-swapped if needed, once for all messages of a
block.  A word starts at a multiple of 8 bytes, or at the first byte of a signal that would cross into the next word.
A signal that spans 9 bytes also takes bits from the ninth byte.

A call of numpy costs more than the work on a few signals, so one call handles many signals.  All signals of a word are
shifted by one call.  Then all signals of the message are masked together, and their signs are extended together.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.plan import SignalPlan
from can_dbc.values import WORD_BITS, Kind

WORD_BYTES = 8


class _Straddle(msgspec.Struct, frozen=True):
    """A signal that spans 9 bytes: the 8 bytes of a word, and a ninth byte at offset `at` of the frame data.

    `row` is the signal's row in the array of raw values.  The word holds `held` bits of the signal, and the ninth byte
    holds the other `missing` bits.  These are the lowest bits of a big-endian signal, or the highest bits of a
    little-endian signal.
    """

    row: int
    at: int
    missing: int
    held: int
    big_endian: bool


class Words:
    """Holds the data of some frames as 64-bit words, and gathers each word when it is first needed."""

    def __init__(self, data: NDArray[np.uint8], rows: NDArray[np.intp] | None) -> None:
        """Use the frames at `rows` of `data` (n, width), or all frames if `rows` is None.

        `data` is C-contiguous, and its width is a multiple of 8.
        """
        self._data = data.view("<i8")
        self._rows = rows
        self._words: dict[tuple[int, bool], NDArray[np.int64]] = {}

    def word(self, offset: int, big_endian: bool) -> NDArray[np.int64]:
        """Return the 8 bytes of each frame from byte `offset` on, as an integer (n,).

        These bytes must lie within the width.
        """
        word = self._words.get((offset, big_endian))
        if word is None:
            if big_endian:
                word = self.word(offset, False).byteswap()
            elif offset % WORD_BYTES == 0:
                word = self._data[:, offset // WORD_BYTES]
                word = (word if self._rows is None else word.take(self._rows)).astype(np.int64, copy=False)
            else:
                shift = 8 * (offset % WORD_BYTES)
                first = offset - offset % WORD_BYTES
                word = self.word(first, False) >> shift & (1 << WORD_BITS - shift) - 1
                word |= self.word(first + WORD_BYTES, False) << WORD_BITS - shift
            self._words[offset, big_endian] = word
        return word

    def byte(self, at: int) -> NDArray[np.int64]:
        """Return the byte at offset `at` of each frame, as an integer (n,)."""
        within = at % WORD_BYTES
        return self.word(at - within, False) >> 8 * within & 0xFF


class Extraction:
    """Extracts the signals of one message from frame data.  One instance serves all blocks."""

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
        self._shift = np.array(shifts, np.int64).reshape(-1, 1)
        rows_of_word = [
            [row for row, word in enumerate(word_of) if word == number] for number in range(len(self._words))
        ]
        self._rows_of_word = [_selector(rows) for rows in rows_of_word]
        self._shift_of_word = [self._shift[rows] for rows in rows_of_word]
        # The mask also removes the sign bits that the arithmetic shift of int64 brings in.  The mask for 64 bits is -1.
        masks = np.array([(1 << s.bits) - 1 for s in signals], np.uint64)
        self._mask = masks.view(np.int64).reshape(-1, 1)
        signed = [row for row, s in enumerate(signals) if s.kind is Kind.INT and s.bits < WORD_BITS]
        # (raw ^ sign) - sign extends the sign.  A slice from the first signed row to the last one is a view and needs
        # no copy.  Unsigned rows within the slice have sign 0, which leaves them unchanged.
        self._signed = slice(signed[0], signed[-1] + 1) if signed else slice(0)
        signs = [1 << s.bits - 1 if row in signed else 0 for row, s in enumerate(signals)]
        self._sign = np.array(signs[self._signed], np.int64).reshape(-1, 1)

    def _place(self, row: int, signal: SignalPlan) -> tuple[int, int]:
        """Return the byte offset of the word that holds `signal`, and how many bits to shift the word right.

        A signal that spans 9 bytes is also added to the list of straddling signals.
        """
        first, last = signal.first_bit // 8, (signal.first_bit + signal.bits - 1) // 8
        offset = first - first % WORD_BYTES
        if last >= offset + WORD_BYTES:
            # A signal that crosses into the next word is read from its own first byte.  Because that next word exists,
            # the data is long enough.
            offset = first
        within = signal.first_bit - 8 * offset
        missing = within + signal.bits - WORD_BITS
        if missing > 0:
            held = WORD_BITS - within
            self._straddles.append(_Straddle(row, offset + WORD_BYTES, missing, held, signal.big_endian))
        if signal.big_endian:
            return offset, max(-missing, 0)
        return offset, within

    def __call__(self, words: Words, start: int, stop: int) -> NDArray[np.int64]:
        """Return the raw values (signals, stop - start) of the frames `start` to `stop` - 1 in `words`."""
        if not self._rows:
            return np.zeros((0, stop - start), np.int64)
        if len(self._words) == 1:
            raw = words.word(*self._words[0])[start:stop] >> self._shift
        else:
            raw = np.empty((self._rows, stop - start), np.int64)
            for word, rows, shift in zip(self._words, self._rows_of_word, self._shift_of_word, strict=True):
                raw[rows] = words.word(*word)[start:stop] >> shift
        for straddle in self._straddles:
            _join(raw[straddle.row], words.byte(straddle.at)[start:stop], straddle)
        raw &= self._mask
        if len(self._sign):
            signed = raw[self._signed]
            signed ^= self._sign
            signed -= self._sign
        return raw


def _selector(rows: list[int]) -> slice | NDArray[np.intp]:
    """Return adjacent rows as a slice, which numpy applies without copying, and other rows as an array of indices."""
    if rows and rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return np.array(rows, np.intp)


def _join(raw: NDArray[np.int64], last: NDArray[np.int64], straddle: _Straddle) -> None:
    """Add the bits of the ninth byte, `last`, to `raw` in place.  `raw` is the row of a signal that spans 9 bytes."""
    if straddle.big_endian:
        raw <<= straddle.missing
        raw |= last >> 8 - straddle.missing
    else:
        raw &= (1 << straddle.held) - 1
        raw |= last << straddle.held
