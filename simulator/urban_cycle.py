"""Models the physics of the virtual vehicle, a plug-in hybrid that drives through a town.

Pure.  The route gives speed and heading.  Forces, powers, energies and temperatures follow from them.  Time advances in
whole seconds of 100 steps.  A second depends only on the seed and on the seconds before it.  The drive is therefore
the same, whether it is advanced by one second or by many seconds at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.hybrid import ENGINE_MAX_W, Driveline, Hybrid
from simulator.road import Motion, Road
from simulator.route import segments
from simulator.surroundings import Body, Surroundings, is_parked
from simulator.temperatures import Heat, Thermal, after_one_second, between, parked_at


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """Holds the state of the vehicle over some time, in groups of columns.  All columns have equal length."""

    motion: Motion
    driveline: Driveline
    thermal: Thermal
    body: Body

    def __len__(self) -> int:
        return len(self.motion.time_s)

    def take(self, rows: NDArray[np.int64]) -> "Drive":
        """Return the drive with only the given rows, in the given order."""
        return Drive(self.motion.take(rows), self.driveline.take(rows), self.thermal.take(rows), self.body.take(rows))


class UrbanCycle:
    """Simulates one drive.  Each call of `advance` continues it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self._road = Road(rng)
        self._hybrid = Hybrid(rng)
        self._surroundings = Surroundings(rng)
        ambient_degc = self._surroundings.ambient_degc
        self._temperatures = parked_at(ambient_degc, warmth_k=float(rng.uniform(5.0, 40.0)))
        self._route = segments(seed)
        self._segment = next(self._route)
        self._elapsed_s = 0
        self._second = 0

    def advance(self, seconds: int) -> Drive:
        """Return the next `seconds` of the drive, with 100 rows for each second."""
        return _joined([self._next_second() for _ in range(seconds)])

    def _next_second(self) -> Drive:
        if self._elapsed_s == self._segment.duration_s:
            self._segment = next(self._route)
            self._elapsed_s = 0
        # Each model starts from the temperatures before the second, so that no quantity depends on itself.
        segment, elapsed_s, before = self._segment, self._elapsed_s, self._temperatures
        motion = self._road.second(self._second, segment, elapsed_s)
        driveline = self._hybrid.second(motion, segment, before, parked=is_parked(segment, elapsed_s))
        body = self._surroundings.second(motion, segment, elapsed_s)
        self._temperatures = after_one_second(before, _heat(motion, driveline, body))
        self._elapsed_s += 1
        self._second += 1
        return Drive(motion, driveline, between(before, self._temperatures), body)


def _heat(motion: Motion, driveline: Driveline, body: Body) -> Heat:
    return Heat(
        ambient_degc=float(body.ambient_degc[-1]),
        solar_wpm2=float(body.solar_wpm2[-1]),
        speed_mps=float(motion.speed_mps[-1]),
        engine_on=bool(driveline.engine_on[-1]),
        engine_load=float(driveline.engine_w.mean()) / ENGINE_MAX_W,
        fuel_w=float(driveline.fuel_w.mean()),
        motor_w=float(np.abs(driveline.motor_w).mean()),
        battery_a=float(driveline.battery_a.mean()),
        door_open=bool(body.front_right_open[-1] or body.rear_right_open[-1] or body.tailgate_open[-1]),
    )


def _joined(seconds: Sequence[Drive]) -> Drive:
    if len(seconds) == 1:
        return seconds[0]
    return Drive(
        Motion.join([second.motion for second in seconds]),
        Driveline.join([second.driveline for second in seconds]),
        Thermal.join([second.thermal for second in seconds]),
        Body.join([second.body for second in seconds]),
    )
