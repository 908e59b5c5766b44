"""Computes when the frames of cyclic messages are released, and when their transmission on the bus ends.

Pure.  A frame is released when it is ready to be sent.  Times are whole microseconds from the start of the drive.  Each
message has a period, a phase of its own, and a jitter that depends only on the number of the transmission.  The times
therefore do not depend on how the drive is cut into blocks.  A bus carries one frame at a time, so timestamps rise
strictly on each bus.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator import noise

_JITTER_MAX_US: Final = 800
_NOMINAL_BIT_NS: Final = 2_000  # 500 kbit/s
_DATA_BIT_NS: Final = 500  # 2 Mbit/s

Micros = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cycle:
    """Holds the timing of one cyclic message.  No other message has the same `stream` of noise."""

    seed: int
    stream: int
    period_us: int

    def released(self, begin_us: int, end_us: int) -> tuple[NDArray[np.int64], Micros]:
        """Return (index, time) of the transmissions that are released from `begin_us` to before `end_us`."""
        jitter_us = min(self.period_us // 20, _JITTER_MAX_US)
        phase = noise.uniform(self.seed, self.stream, np.zeros(1, np.int64))[0]
        phase_us = int(phase * self.period_us)
        # A transmission may be late by its jitter, so transmissions due shortly before `begin_us` are candidates as
        # well.
        first = max(0, (begin_us - jitter_us - phase_us) // self.period_us)
        index = np.arange(first, (end_us - phase_us) // self.period_us + 1)
        late_us = (noise.uniform(self.seed, self.stream, index + 1) * jitter_us).astype(np.int64)
        time_us = phase_us + index * self.period_us + late_us
        within = (time_us >= begin_us) & (time_us < end_us)
        return index[within], time_us[within]


def frame_us(length: int, *, extended: bool, fd: bool) -> int:
    """Return the microseconds that a frame of `length` data bytes occupies the bus, with typical bit stuffing."""
    # Stuffing adds at most a quarter of the bits, and typically a tenth.  The sizes of the fields around the data are
    # those of ISO 11898-1.  CAN FD sends its data phase at the higher bit rate.
    arbitration_bits = 50 if extended else 30
    if fd:
        return (arbitration_bits * _NOMINAL_BIT_NS + (8 * length + 40) * 11 // 10 * _DATA_BIT_NS) // 1_000
    return (arbitration_bits + 17 + 8 * length) * 11 // 10 * _NOMINAL_BIT_NS // 1_000


def carried(released_us: Micros, duration_us: Micros, free_us: int) -> Micros:
    """Return the time at which the transmission of each frame ends.

    A frame waits for the end of the frame before it.  No transmission starts before `free_us`.  The times in
    `released_us` must not decrease.
    """
    # Frames are sent in the order of their release.  Arbitration by identifier on a real bus would reorder only the few
    # frames that wait at the same moment, and consumers could not tell this from jitter.
    total = np.cumsum(duration_us)
    latest_start = np.maximum(np.maximum.accumulate(released_us - (total - duration_us)), free_us)
    return total + latest_start
