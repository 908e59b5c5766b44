"""Refusals: why frames were not decoded, and how many of each identifier.  Pure.

Nothing in a block can make decoding fail: a frame that does not decode is refused, and every refusal is counted by
kind, bus and identifier.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from can_dbc.frames import EXTENDED, FrameBlock
from can_dbc.plan import EXTENDED_KEY

BUS_SHIFT: Final = 32  # A key is the bus, the type of the identifier (bit 31) and the identifier.
ID_BITS: Final = EXTENDED_KEY - 1
STANDARD_IDS: Final = 1 << 11


class Refused(StrEnum):
    """Why a frame was not decoded."""

    UNKNOWN = "unknown"  # no message of the bus has this identifier
    SHORT = "short"  # fewer data bytes than the message has
    MUX = "mux"  # a multiplexer number that the database does not list
    LAYOUT = "layout"  # the database's signals overlap or do not fit
    CONTAINER = "container"  # a container that contradicts itself, or lies in another one
    LONG = "long"  # more data bytes than the container may have
    TRUNCATED = "truncated"  # a PDU of the container reaches beyond its data
    HEADER = "header"  # a PDU of a container: no contained message has this header id
    REMOTE = "remote"  # a remote request carries no data
    ERROR = "error"  # an error frame is not bus traffic


@dataclass(frozen=True, slots=True)
class Refusal:
    """`frames` frames of one identifier, refused for one reason; `message` is the name of the message, None if unknown.

    For contained messages, and for Refused.HEADER, PDUs are counted instead of frames.
    """

    kind: Refused
    bus: int
    can_id: int
    extended: bool
    message: str | None
    frames: int


class RefusedFrames:
    """The refused frames of a block, by reason and name of the message, as places in the block.

    `containers` and `pdus` count the frames that were taken apart, and what they held.
    """

    def __init__(self, block: FrameBlock) -> None:
        self.containers = self.pdus = 0
        self._block = block
        self._rows: list[tuple[Refused, str | None, NDArray[np.intp]]] = []

    def add(self, kind: Refused, rows: NDArray[np.intp], message: str | None) -> None:
        """Add the frames at `rows`, if there are any."""
        if len(rows):
            self._rows.append((kind, message, rows))

    def by_kind(self) -> Counter[Refused]:
        """Count the refused frames by reason, which is cheap."""
        found: Counter[Refused] = Counter()
        for kind, _, rows in self._rows:
            found[kind] += len(rows)
        return found

    def by_identifier(self) -> tuple[Refusal, ...]:
        """Count the refused frames by reason and identifier, which looks at each of them."""
        found: Counter[tuple[Refused, int, int, bool, str | None]] = Counter()
        for kind, message, rows in self._rows:
            for key, frames in _frames_of_keys(self._block, rows):
                found[kind, key >> BUS_SHIFT, key & ID_BITS, bool(key & EXTENDED_KEY), message] += frames
        return tuple(Refusal(*identity, frames) for identity, frames in found.items())


def _frames_of_keys(block: FrameBlock, rows: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield (key, count) for each bus and identifier of the frames at `rows`."""
    can_id, bus = block.can_id[rows] & ID_BITS, block.bus[rows].astype(np.int64)
    extended = block.flags[rows] & EXTENDED
    if not extended.any() and can_id.max() < STANDARD_IDS:  # Counting is faster than sorting.
        counts = np.bincount(bus * STANDARD_IDS + can_id)
        for key in np.flatnonzero(counts).tolist():
            yield key // STANDARD_IDS << BUS_SHIFT | key % STANDARD_IDS, int(counts[key])
        return
    keys = bus << BUS_SHIFT | extended.astype(np.int64) << 31 | can_id
    yield from zip(*(a.tolist() for a in np.unique(keys, return_counts=True)), strict=True)
