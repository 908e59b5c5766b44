"""Models daylight, rain and air around the virtual vehicle, and the people who get in and out.

Pure.  A stop at the kerb follows a script with fixed times: the selector goes to P, doors open and close, and the
selector goes back to D.
"""

import math
from dataclasses import dataclass

import numpy as np

from simulator.columns import Column, Columns, constant
from simulator.road import Motion
from simulator.route import Segment, Stop


@dataclass(frozen=True, slots=True, eq=False)
class Body(Columns):
    """Holds the quantities that the controllers of the body bus sense, as columns."""

    parked: Column  # selector in P
    standing: Column
    indicator: Column  # the stalk: -1 right, 0, 1 left
    speed_limit_kmh: Column
    light_lx: Column
    rain: Column  # 0 to 1
    ambient_degc: Column
    solar_wpm2: Column
    locked: Column
    front_right_open: Column
    rear_right_open: Column
    tailgate_open: Column
    passenger: Column
    passenger_belt: Column


class Surroundings:
    """Keeps daylight, weather and occupants, and advances them by one second at a time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.ambient_degc = float(rng.uniform(-6.0, 31.0))
        self._daylight_lx = math.exp(float(rng.uniform(math.log(300.0), math.log(45_000.0))))
        self._rain = float(rng.choice([0.0, 0.0, 0.5, 1.0]))
        self._phase = float(rng.uniform(0.0, 2 * math.pi))
        self._passenger = bool(rng.random() < 0.5)
        self._locked = False

    def second(self, motion: Motion, segment: Segment, elapsed_s: int) -> Body:
        """Return the sensed quantities in the second that begins `elapsed_s` after `segment` started."""
        parked = is_parked(segment, elapsed_s)
        visit = segment.stop is Stop.KERB and segment.duration_s >= 20
        if visit and elapsed_s == 8:
            self._passenger = not self._passenger
        was_locked = self._locked
        self._locked = (was_locked or float(motion.speed_mps[-1]) > 4.2) and not parked
        light = self._light(motion)
        return Body(
            parked=constant(parked),
            standing=constant(segment.stop is not Stop.NONE),
            indicator=constant(segment.indicator),
            speed_limit_kmh=constant(segment.limit_kmh),
            light_lx=light,
            rain=self._rain * np.maximum(np.sin(motion.time_s / 140.0 + self._phase), 0.0),
            ambient_degc=self.ambient_degc + 0.4 * np.sin(motion.time_s / 310.0 + self._phase),
            solar_wpm2=np.minimum(light / 100.0, 900.0),
            locked=constant(was_locked),
            front_right_open=constant(visit and 5 <= elapsed_s < 12),
            rear_right_open=constant(visit and segment.duration_s > 28 and 7 <= elapsed_s < 14),
            tailgate_open=constant(visit and segment.duration_s % 2 == 0 and 4 <= elapsed_s < 17),
            passenger=constant(self._passenger),
            passenger_belt=constant(self._passenger and not parked),
        )

    def _light(self, motion: Motion) -> Column:
        """Return the light in lx.  Clouds change the light over minutes, and an underpass changes it within metres."""
        clouds = 0.65 + 0.35 * np.sin(motion.time_s / 95.0 + self._phase)
        open_sky = 1.0 - 0.4975 * (1.0 + np.tanh((np.sin(motion.distance_m / 210.0) - 0.93) * 200.0))
        return self._daylight_lx * clouds * open_sky


def is_parked(segment: Segment, elapsed_s: int) -> bool:
    """Return whether the selector is in P.

    The selector is in P during a stop at the kerb, except in its first second and its last two seconds.
    """
    return segment.stop is Stop.KERB and 1 <= elapsed_s < segment.duration_s - 2
