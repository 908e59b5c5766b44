"""Buffers undecoded frames and values until a tick takes them.  This file is pure."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from agent.formats.up.signals import SignalBlock
from can_dbc.frames import FrameBlock

Block = FrameBlock | SignalBlock


class Buffer:
    """A queue of blocks, counted in rows.  A row is one frame or one row of values."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()

    def append(self, block: Block) -> None:
        """Add `block` at the end of the queue."""
        self._blocks.append(block)

    def take(self, count: int) -> list[Block]:
        """Remove and return the first `count` rows.  The queue must hold at least `count` rows."""
        taken: list[Block] = []
        while count:
            block = self._blocks.popleft()
            if len(block) > count:
                self._blocks.appendleft(block.slice(count, len(block)))
                block = block.slice(0, count)
            taken.append(block)
            count -= len(block)
        return taken


def frames_of(blocks: Sequence[Block]) -> list[FrameBlock]:
    """Return the frame blocks among `blocks`."""
    return [block for block in blocks if isinstance(block, FrameBlock)]


def values_of(blocks: Sequence[Block]) -> list[SignalBlock]:
    """Return the blocks of values among `blocks`.

    In each returned block, every entry of `rows` is the number of frames that come before the block.  This keeps values
    and frames in order.
    """
    found = []
    frames = 0
    for block in blocks:
        if isinstance(block, FrameBlock):
            frames += len(block)
        else:
            found.append(_placed(block, frames))
    return found


def _placed(block: SignalBlock, place: int) -> SignalBlock:
    return SignalBlock(
        block.table,
        block.t_ns,
        block.signals,
        block.raw,
        block.valid,
        block.source_address,
        np.full(len(block.t_ns), place, np.int64),
    )
