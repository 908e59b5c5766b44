"""Holds CAN frames as columns, the form in which frames travel from a source to the decoder.

Pure.  A source fills one block each time it wakes up, and no later stage handles frames one by one.  Frames keep the
order of the bus (or of the log), which is not always the order of their timestamps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

EXTENDED: Final = 0x01  # 29-bit identifier
FD: Final = 0x02  # CAN FD frame
REMOTE: Final = 0x04  # remote request, which carries no data
ERROR: Final = 0x08  # error frame of the controller, not bus traffic
BRS: Final = 0x10  # bit-rate switch of a CAN FD frame
ESI: Final = 0x20  # error state indicator of a CAN FD frame
CLASSIC_BYTES: Final = 8
FD_BYTES: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class FrameBlock:
    """Holds `n` frames as columns, in the order in which their source delivered them.

    `t_ns` (n,) int64 is Unix time in nanoseconds.  `bus` (n,) uint8 is an index into `buses`.  `can_id` (n,) uint32 has
    no flag bits.  `flags` (n,) uint8 combines EXTENDED, FD, REMOTE, ERROR, BRS and ESI.  `length` (n,) uint8 is the
    number of data bytes, 0 to 64.  `data` (n, 8) or (n, 64) uint8 is C-contiguous and zero beyond `length`.  A source
    counts its frames from 0, and frame i of the block has the number `first + i`.
    """

    t_ns: NDArray[np.int64]
    bus: NDArray[np.uint8]
    can_id: NDArray[np.uint32]
    flags: NDArray[np.uint8]
    length: NDArray[np.uint8]
    data: NDArray[np.uint8]
    buses: tuple[str, ...]
    first: int = 0

    def __len__(self) -> int:
        return len(self.t_ns)

    def slice(self, start: int, stop: int) -> "FrameBlock":
        """Return the frames `start` to `stop` - 1 as views.  They keep the numbers that the source gave them."""
        return FrameBlock(
            self.t_ns[start:stop],
            self.bus[start:stop],
            self.can_id[start:stop],
            self.flags[start:stop],
            self.length[start:stop],
            self.data[start:stop],
            self.buses,
            self.first + start,
        )


def concatenate(blocks: Sequence[FrameBlock]) -> FrameBlock:
    """Join consecutive blocks of one source into one block.

    Raises: ValueError if there are no blocks, or if the blocks list different buses.
    """
    if not blocks:
        raise ValueError("There are no blocks to concatenate; pass at least one block.")
    if len(blocks) == 1:
        return blocks[0]
    if any(block.buses != blocks[0].buses for block in blocks):
        raise ValueError("Blocks that list different buses cannot be concatenated; give all blocks the same buses.")
    width = max(block.data.shape[1] for block in blocks)
    return FrameBlock(
        np.concatenate([block.t_ns for block in blocks]),
        np.concatenate([block.bus for block in blocks]),
        np.concatenate([block.can_id for block in blocks]),
        np.concatenate([block.flags for block in blocks]),
        np.concatenate([block.length for block in blocks]),
        np.concatenate([_widened(block.data, width) for block in blocks]),
        blocks[0].buses,
        blocks[0].first,
    )


def _widened(data: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    if data.shape[1] == width:
        return data
    wide = np.zeros((len(data), width), np.uint8)
    wide[:, : data.shape[1]] = data
    return wide
