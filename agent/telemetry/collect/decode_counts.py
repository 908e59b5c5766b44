"""Counts, for each bus, the frames that reached the decoder and those that did not decode.  Pure."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from can_dbc.decoder import Decoded
from can_dbc.frames import FrameBlock


class DecodeCounts:
    """Counts the frames of `buses`.  `refused` counts those that did not decode, by reason."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._frames: Counter[str] = Counter()
        self._not_decoded: Counter[str] = Counter()

    def add(self, block: FrameBlock, decoded: Decoded, buses: Sequence[str]) -> None:
        """Count the frames of `block`, with the result of decoding them."""
        for kind, count in decoded.refused.items():
            self.refused[kind.value] += count
        for bus, frames in enumerate(np.bincount(block.bus, minlength=len(buses)).tolist()):
            self._frames[buses[bus]] += frames
        for bus, frames in decoded.refused_by_bus().items():
            self._not_decoded[buses[bus]] += frames

    def by_bus(self) -> dict[str, tuple[int, int]]:
        """Return how many frames of each bus reached the decoder, and how many of them did not decode.

        A bus without frames is left out.
        """
        return {bus: (frames, self._not_decoded[bus]) for bus, frames in list(self._frames.items()) if frames}
