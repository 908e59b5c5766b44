"""Counts the frames that were not decoded, by reason, bus and identifier.  Pure.

Nothing in a block can make decoding fail.  A frame that does not decode is refused, and every refusal is counted.
"""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from can_dbc.frames import EXTENDED, FrameBlock
from can_dbc.plan import EXTENDED_KEY

BUS_SHIFT: Final = 32  # A key combines the bus, the type of the identifier (bit 31) and the identifier.
ID_BITS: Final = EXTENDED_KEY - 1
STANDARD_IDS: Final = 1 << 11


class Refused(StrEnum):
    """Names the reasons for which frames are not decoded."""

    UNKNOWN = "unknown"  # no message of the bus has this identifier
    SHORT = "short"  # the frame has fewer data bytes than its message
    CONTAINER = "container"  # the container contradicts itself, or lies in another container
    LONG = "long"  # the frame has more data bytes than the container allows
    TRUNCATED = "truncated"  # a PDU reaches beyond the data of its frame
    HEADER = "header"  # no contained message has the header id of the PDU
    REMOTE = "remote"  # a remote request carries no data
    ERROR = "error"  # an error frame is not bus traffic


class Refusal(msgspec.Struct, frozen=True):
    """Counts the frames of one identifier that were refused for one reason.

    `message` is the name of the message, or None if it is unknown.  For contained messages, and for Refused.HEADER,
    `frames` counts PDUs instead of frames.
    """

    kind: Refused
    bus: int
    can_id: int
    extended: bool
    message: str | None
    frames: int


class Unlisted(msgspec.Struct, frozen=True):
    """Counts the frames that were decoded without what a multiplexer selects, because its number is not listed.

    For contained messages, `frames` counts PDUs instead of frames.
    """

    bus: int
    message: str
    multiplexer: str
    frames: int


class RefusedFrames:
    """Collects the refused frames of a block, each with its row in the block, the reason and the name of the message.

    It also collects the frames that were decoded in part, because the database does not list their multiplexer number.
    `containers` counts the frames that were taken apart, and `pdus` counts the PDUs in them.
    """

    def __init__(self, block: FrameBlock) -> None:
        self.containers = self.pdus = 0
        self._block = block
        self._rows: list[tuple[Refused, str | None, NDArray[np.intp]]] = []
        self._unlisted: list[tuple[str, str, NDArray[np.intp]]] = []

    def add(self, kind: Refused, rows: NDArray[np.intp], message: str | None) -> None:
        """Add the frames at `rows`, refused for the reason `kind`.  `rows` may be empty."""
        if len(rows):
            self._rows.append((kind, message, rows))

    def add_unlisted(self, rows: NDArray[np.intp], message: str, multiplexer: str) -> None:
        """Add the frames at `rows`, in which `multiplexer` has a number that the database does not list."""
        if len(rows):
            self._unlisted.append((message, multiplexer, rows))

    def unlisted(self) -> tuple[Unlisted, ...]:
        """Return the number of frames with unlisted numbers for each bus and multiplexer."""
        found: Counter[tuple[int, str, str]] = Counter()
        for message, multiplexer, rows in self._unlisted:
            for bus, frames in enumerate(np.bincount(self._block.bus[rows]).tolist()):
                if frames:
                    found[bus, message, multiplexer] += frames
        return tuple(Unlisted(*identity, frames) for identity, frames in found.items())

    def by_kind(self) -> Counter[Refused]:
        """Return the number of refused frames for each reason.  This is cheap."""
        found: Counter[Refused] = Counter()
        for kind, _, rows in self._rows:
            found[kind] += len(rows)
        return found

    def by_bus(self) -> Counter[int]:
        """Return the number of refused frames of each bus.  This is cheap."""
        found: Counter[int] = Counter()
        for _, _, rows in self._rows:
            for bus, frames in enumerate(np.bincount(self._block.bus[rows]).tolist()):
                found[bus] += frames
        return found

    def by_identifier(self) -> tuple[Refusal, ...]:
        """Return the number of refused frames for each reason and identifier.  This looks at every refused frame."""
        found: Counter[tuple[Refused, int, int, bool, str | None]] = Counter()
        for kind, message, rows in self._rows:
            for key, frames in _frames_of_keys(self._block, rows):
                found[kind, key >> BUS_SHIFT, key & ID_BITS, bool(key & EXTENDED_KEY), message] += frames
        return tuple(Refusal(*identity, frames) for identity, frames in found.items())


def _frames_of_keys(block: FrameBlock, rows: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield (key, number of frames) for each bus and identifier of the frames at `rows`; BUS_SHIFT explains the key."""
    can_id, bus = block.can_id[rows] & ID_BITS, block.bus[rows].astype(np.int64)
    extended = block.flags[rows] & EXTENDED
    if not extended.any() and can_id.max() < STANDARD_IDS:  # Counting is faster than sorting.
        counts = np.bincount(bus * STANDARD_IDS + can_id)
        for key in np.flatnonzero(counts).tolist():
            yield key // STANDARD_IDS << BUS_SHIFT | key % STANDARD_IDS, int(counts[key])
        return
    keys = bus << BUS_SHIFT | extended.astype(np.int64) << 31 | can_id
    yield from zip(*(a.tolist() for a in np.unique(keys, return_counts=True)), strict=True)
