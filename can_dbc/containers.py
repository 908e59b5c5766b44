"""Takes the frames of a container message apart into the PDUs that they hold.  Pure.

A frame holds PDUs one after the other.  Each PDU starts with AUTOSAR's short header, which cantools reads as big
endian, whatever byte order the database names:

    3 bytes  header id: which contained message
    1 byte   length of the data
    n bytes  data

cantools does not support long headers.  It loads a container with long headers as a message without signals.

Fewer than 4 bytes at the end of a frame are padding.  A header of zeros is padding too, unless a contained message has
the header id 0.  The first PDUs of all frames are found at once, then all second PDUs, and so on.  The cost therefore
grows with the number of PDUs in a frame (16 at most) and of contained messages, not with the number of frames.

Invariant: if a PDU reaches beyond the data of its frame, the frame is marked as `truncated`, and none of its PDUs is
returned.
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
    """Holds `m` PDUs of one contained message, in the order of their frames.

    `frame` (m,) is the index of the frame that holds the PDU.  `length` (m,) is the length of the PDU in bytes.  `data`
    (m, width) uint8 is zero beyond `length`.  The width is a multiple of 8.  If a PDU is longer than the width, `data`
    holds only its first bytes, but `length` is its full length.
    """

    frame: NDArray[np.intp]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]


class Unpacked:
    """Holds the PDUs of `n` frames.

    `truncated` (n,) bool marks the frames in which a PDU reaches beyond the data.  All PDUs of such a frame are
    dropped.
    """

    def __init__(self, data: NDArray[np.uint8], length: NDArray[np.uint8], header_ids: Sequence[int]) -> None:
        """Take apart `n` frames, given as `data` (n, width) and `length` (n,) in bytes.

        `header_ids` are the header ids of the contained messages.
        """
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
        """Return the number of PDUs, without padding."""
        return len(self._frame)

    @property
    def unlisted(self) -> NDArray[np.intp]:
        """Return the index of the frame for each PDU with a header id that belongs to no contained message."""
        frame: NDArray[np.intp] = self._frame[self._header_id == _UNLISTED]
        return frame

    def of(self, header_id: int, width_bytes: int) -> Pdus:
        """Return the PDUs with `header_id`, their data cut or zero-padded to one width.

        The width is `width_bytes` rounded up to a multiple of 8, and at least 8.
        """
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
    """Find the PDUs of all frames, and return the frame index, the header id and the data offset of each PDU.

    The first PDUs of all frames come first, then all second PDUs, and so on.  `truncated` is set to True for each frame
    in which a PDU reaches beyond `length`.
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
