"""Sampling: how a controller turns the state of the vehicle into the signals of one message.

Pure.  A sampler gives physical values by signal name, one a frame or one for all; `AliveCounter` and the checksums are
not its business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator import noise
from simulator.columns import Column
from simulator.urban_cycle import Drive

KMH: Final = 3.6  # of one m/s


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """The frames of one message: `index` (n,) int64 counts its transmissions from 0, `t_ns` (n,) int64 Unix epoch."""

    seed: int
    index: NDArray[np.int64]
    t_ns: NDArray[np.int64]

    def noise(self, stream: int, amplitude: float) -> Column:
        """Sensor noise, uniform between -amplitude and amplitude; `stream` tells sensors apart."""
        return amplitude * (2.0 * noise.uniform(self.seed, stream, self.index) - 1.0)

    def trait(self, stream: int, low: float, high: float) -> float:
        """A property of this very vehicle, between `low` and `high`, the same for its whole life."""
        return low + (high - low) * float(noise.uniform(self.seed, stream, np.zeros(1, np.int64))[0])

    def traits(self, stream: int, count: int, low: float, high: float) -> Column:
        """`count` of them, of parts of one kind."""
        return low + (high - low) * noise.uniform(self.seed, stream, np.arange(1, count + 1))


Signals = Mapping[str, Column | float]
Sampler = Callable[[Drive, Sending], Signals]
