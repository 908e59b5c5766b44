"""Defines samplers, which turn the state of the vehicle into the signals of one message.

Pure.  A sampler returns physical values by signal name, either one value for each frame or one value for all frames.
Counters and checksums are added later (`simulator.sender`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator import noise
from simulator.columns import Column
from simulator.urban_cycle import Drive

KMH: Final = 3.6  # km/h of one m/s


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """Identifies transmissions of one message.

    `index` (n,) int64 counts the transmissions of the message from 0.  `t_ns` (n,) int64 is Unix time in nanoseconds.
    """

    seed: int
    index: NDArray[np.int64]
    t_ns: NDArray[np.int64]

    def noise(self, stream: int, amplitude: float) -> Column:
        """Return sensor noise, uniform between -amplitude and amplitude; each sensor has its own `stream`."""
        return amplitude * (2.0 * noise.uniform(self.seed, stream, self.index) - 1.0)

    def trait(self, stream: int, low: float, high: float) -> float:
        """Return the constant value, between `low` and `high`, of the vehicle's property number `stream`."""
        return low + (high - low) * float(noise.uniform(self.seed, stream, np.zeros(1, np.int64))[0])

    def traits(self, stream: int, count: int, low: float, high: float) -> Column:
        """Return one value between `low` and `high` for each of `count` components, such as wheels."""
        return low + (high - low) * noise.uniform(self.seed, stream, np.arange(1, count + 1))


Signals = Mapping[str, Column | float]
Sampler = Callable[[Drive, Sending], Signals]
