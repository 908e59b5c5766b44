"""Deliver recorded or simulated frames at `speed` times real time.

Frames are delivered at drain ticks, which have a fixed distance in time.  `Pacer` computes the tick at which each frame
is due; it needs no clock.  `paced` sleeps until each tick, and then yields the frames that are due.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from can_dbc.frames import FrameBlock

# Apps expect a new value within 100 ms.  Paced sources deliver twice in that time, and wake the machine no more often.
DRAIN_MS: Final = 50


@dataclass(slots=True)
class Pacer:
    """Cuts one stream of frame blocks at drain ticks, which are `drain_ms` of wall time apart."""

    speed: float
    drain_ms: int
    _origin_ns: int | None = None
    _newest_ns: int = 0

    def cut(self, block: FrameBlock) -> Iterator[tuple[int, FrameBlock]]:
        """Cut `block` into slices, and yield (tick, slice) pairs.

        A slice is due `tick` drain intervals after the first frame of the stream.
        """
        if not len(block):
            return
        if self._origin_ns is None:
            self._origin_ns = self._newest_ns = int(block.t_ns[0])
        # A timestamp that steps back is due with the frame before it, because the order of frames never changes.
        newest = np.maximum(np.maximum.accumulate(block.t_ns), self._newest_ns)
        self._newest_ns = int(newest[-1])
        tick_ns = self.drain_ms * 1_000_000 * self.speed
        ticks = np.ceil((newest - self._origin_ns) / tick_ns).astype(np.int64)
        starts = [0, *(np.flatnonzero(np.diff(ticks)) + 1).tolist(), len(block)]
        for start, stop in pairwise(starts):
            yield int(ticks[start]), block.slice(start, stop)


async def paced(
    blocks: Iterator[FrameBlock],
    *,
    speed: float,
    drain_ms: int,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncIterator[FrameBlock]:
    """Yield the frames of `blocks` when they are due.  With `speed` 0, yield whole blocks without waiting.

    Each block is fetched in a thread, because `blocks` may read files or compute for long.  Exceptions of `blocks` are
    raised unchanged.
    """
    pacer = Pacer(speed, drain_ms)
    started: float | None = None
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        if not speed:
            yield block
            continue
        for tick, due in pacer.cut(block):
            if started is None:
                started = now()
            # Deadlines count from the first frame, so that nothing drifts and a late consumer catches up.
            wait_s = started + tick * drain_ms / 1000 - now()
            if wait_s > 0:
                await sleep(wait_s)
            yield due
