"""Containers: the frames of one container message taken apart into the PDUs that they hold.  Pure.

A frame holds PDUs one after the other, each behind AUTOSAR's short header, as cantools reads it (big endian, whatever
byte order the database names; a frame with long headers it loads as a message without signals):

    3 bytes  header id: which contained message
    1 byte   length of the data
    n bytes  data

Fewer than 4 bytes at the end are padding, and so is a header of zeros.  The k-th PDUs of all frames are found at once,
so the cost grows with the PDUs in a frame (16 at most) and the contained messages, not with the frames.

Invariant: a PDU comes out as its frame holds it, or its whole frame is `truncated`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES: Final = 4
_WORD_BYTES: Final = 8
_UNLISTED: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Pdus:
    """`m` PDUs of one contained message, in the order of their frames.

    `frame` (m,) is the place of each PDU's frame.  `length` (m,) is the number of bytes that the frame holds of it.
    `data` (m, width) uint8 has at least the asked width, a multiple of 8, and is zero beyond `length`.
    """

    frame: NDArray[np.intp]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]


class Unpacked:
    """The PDUs of `n` frames.  `truncated` (n,) bool: a PDU reaches beyond the data of its frame, so no PDU counts."""

    def __init__(self, data: NDArray[np.uint8], length: NDArray[np.uint8], header_ids: Sequence[int]) -> None:
        """Take apart frames of `data` (n, width) and `length` (n,); `header_ids` has those of contained messages."""
        self._data = data
        self.truncated = np.zeros(len(data), np.bool_)
        frame, header_id, start = _walk(data, length.astype(np.intp), self.truncated)
        keep = ~self.truncated[frame]
        frame, header_id, start = frame[keep], header_id[keep], start[keep]
        size = data[frame, start - 1]  # The length is the last byte of the header.
        order = np.argsort(frame, kind="stable")
        listed = np.sort(np.array(header_ids, np.int64))
        known = listed[np.minimum(np.searchsorted(listed, header_id), len(listed) - 1)] == header_id
        # A header of zeros is padding, unless a contained message has the header id 0.
        keep = known | (header_id != 0) | (size != 0)
        order = order[keep[order]]
        self._frame, self._start, self._size = frame[order], start[order], size[order]
        self._header_id = np.where(known, header_id, _UNLISTED)[order]

    @property
    def count(self) -> int:
        """Return how many PDUs there are, without padding."""
        return len(self._frame)

    @property
    def unlisted(self) -> NDArray[np.intp]:
        """Return the place of the frame for each PDU whose header id no contained message has."""
        frame: NDArray[np.intp] = self._frame[self._header_id == _UNLISTED]
        return frame

    def of(self, header_id: int, width_bytes: int) -> Pdus:
        """Return the PDUs of one contained message, cut or padded to `width_bytes`, rounded up to 8 bytes."""
        chosen = np.flatnonzero(self._header_id == header_id)
        frame, start, size = self._frame[chosen], self._start[chosen], self._size[chosen]
        width = max(-(-width_bytes // _WORD_BYTES), 1) * _WORD_BYTES
        column = np.arange(width)
        place = np.minimum(start[:, None] + column, self._data.shape[1] - 1)
        data = np.where(column < size[:, None], self._data[frame[:, None], place], np.uint8(0))
        return Pdus(frame, size, data)


def _walk(
    data: NDArray[np.uint8], length: NDArray[np.intp], truncated: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.intp]]:
    """Return frame, header id and start of the data of all PDUs: the first ones of all frames, then the second ones.

    `truncated` is set for frames with a PDU that reaches beyond `length`.
    """
    frames, header_ids, starts = [], [], []
    frame = np.arange(len(data))
    at = np.zeros(len(data), np.intp)
    while True:
        more = at + _HEADER_BYTES <= length[frame]
        frame, at = frame[more], at[more]
        if not len(frame):
            break
        high, middle, low, size = (data[frame, at + byte].astype(np.int64) for byte in range(_HEADER_BYTES))
        at = at + _HEADER_BYTES
        frames.append(frame)
        header_ids.append(high << 16 | middle << 8 | low)
        starts.append(at)
        at = at + size
        truncated[frame[at > length[frame]]] = True
    if not frames:
        return np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros(0, np.intp)
    return np.concatenate(frames), np.concatenate(header_ids), np.concatenate(starts)
