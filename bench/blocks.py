"""Measures how decoding depends on the size of a block, for one message with eight signals.

Our decoder, cantools and a hand-written numpy function decode the same frames.  The numpy function extracts the eight
signals with the fewest array operations, and does not look at identifiers.  Its speed is the upper bound.
"""

from typing import Final

import numpy as np
from cantools.database.can import Database, Message, Signal
from cantools.database.conversion import BaseConversion
from numpy.typing import NDArray

from bench.columns import Different
from bench.conversions import Conversions
from bench.timing import interleaved
from can_dbc.compile import compile_plan
from can_dbc.decoder import Decoder
from can_dbc.frames import FrameBlock

SIZES: Final = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_SCALES: Final = (1.0, 0.5, 0.1, 2.0, 0.25, 1.0, 0.01, 1.0)
_MESSAGE: Final = Message(
    0x123,
    "Eight",
    8,
    [
        Signal(f"S{i}", 8 * i, 8, is_signed=i % 2 == 1, conversion=BaseConversion.factory(_SCALES[i], -40.0))
        for i in range(8)
    ],
)


def block_sizes(rounds: int) -> dict[str, dict[int, float]]:
    """Return frames per second by block size, for `agent`, `raw` (before scaling), `cantools` and `numpy` (the bound).

    Raises: Different if a decoder gives other values than cantools.
    """
    decoder, conversions = Decoder({0: compile_plan([Database([_MESSAGE])])}), Conversions()
    found: dict[str, dict[int, float]] = {"agent": {}, "raw": {}, "cantools": {}, "numpy": {}}
    for size in SIZES:
        block = _block(size)
        contents = [row.tobytes() for row in block.data]

        def agent(block: FrameBlock = block) -> NDArray[np.float64]:
            return conversions.physical(decoder.decode(block).columns[0])

        def raw(block: FrameBlock = block) -> object:
            return decoder.decode(block)

        def cantools(contents: list[bytes] = contents) -> list[object]:
            return [_MESSAGE.decode(content) for content in contents]

        def bound(block: FrameBlock = block) -> NDArray[np.float64]:
            return _by_hand(block.data)

        expected = np.array([list(values.values()) for values in cantools()], np.float64).T  # type: ignore[attr-defined]
        if not (np.array_equal(agent(), expected) and np.array_equal(bound(), expected)):
            raise Different(f"blocks of {size} frames: our decoder or the numpy bound gives other values than cantools")
        seconds = interleaved({"agent": agent, "raw": raw, "cantools": cantools, "numpy": bound}, rounds)
        for name, taken in seconds.items():
            found[name][size] = size / taken
    return found


_SHIFTS: Final = np.arange(0, 64, 8, dtype=np.uint64)[:, None]
_SCALE: Final = np.array(_SCALES)[:, None]


def _by_hand(data: NDArray[np.uint8]) -> NDArray[np.float64]:
    raw = (data.view("<u8")[:, 0] >> _SHIFTS).astype(np.uint8)
    values = raw.astype(np.float64)
    values[1::2] = raw[1::2].view(np.int8)
    values *= _SCALE
    values += -40.0
    return values


def _block(size: int) -> FrameBlock:
    return FrameBlock(
        np.arange(size, dtype=np.int64) * 10**6,
        np.zeros(size, np.uint8),
        np.full(size, 0x123, np.uint32),
        np.zeros(size, np.uint8),
        np.full(size, 8, np.uint8),
        np.random.default_rng(size).integers(0, 256, (size, 8), np.uint8),
        ("can0",),
    )
