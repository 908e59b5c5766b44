"""Computes where the virtual vehicle is and how it moves, from the segments of its route.

Pure.  Place, heading and steering follow from speed and curvature.  Left and counterclockwise are positive.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulator.columns import STEP_S, STEPS_PER_S, Column, Columns, constant
from simulator.route import Segment, smooth_slope, smooth_step

WHEELBASE_M: Final = 2.75
TRACK_M: Final = 1.56
STEERING_RATIO: Final = 15.2

_TIME_S: Final = np.linspace(STEP_S, 1.0, STEPS_PER_S)
_ORIGIN_LATITUDE: Final = 48.13740
_ORIGIN_LONGITUDE: Final = 11.57550
_M_PER_DEG: Final = 111_320.0


@dataclass(frozen=True, slots=True, eq=False)
class Motion(Columns):
    """Holds the motion and the place of the vehicle as columns."""

    time_s: Column  # since the start of the drive
    speed_mps: Column
    acceleration_mps2: Column
    yaw_rate_rps: Column
    curvature_per_m: Column
    heading_rad: Column  # counterclockwise from east
    distance_m: Column  # since the start of the drive
    latitude_deg: Column
    longitude_deg: Column
    altitude_m: Column
    grade: Column  # rise over run
    steering_deg: Column
    steering_deg_per_s: Column
    lead_gap_m: Column  # 0 if no vehicle is ahead
    lead_speed_mps: Column  # speed of the vehicle ahead, relative to this vehicle


class Road:
    """Keeps the place of the vehicle, and advances it by one second at a time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._heading = float(rng.uniform(0.0, 2 * math.pi))
        self._distance_m = self._east_m = self._north_m = self._steering = 0.0

    def second(self, second: int, segment: Segment, elapsed_s: int) -> Motion:
        """Return the motion of one second, which has the number `second` in the drive.

        This second begins `elapsed_s` after `segment` started.
        """
        along = (elapsed_s + _TIME_S) / segment.duration_s
        slope = smooth_slope(along) / segment.duration_s
        speed = segment.start_mps + (segment.end_mps - segment.start_mps) * smooth_step(along)
        acceleration = (segment.end_mps - segment.start_mps) * slope
        distance = self._distance_m + np.cumsum(speed) * STEP_S
        turned = segment.turn_rad * smooth_step(along)
        heading = self._heading + turned
        east = self._east_m + np.cumsum(speed * np.cos(heading)) * STEP_S
        north = self._north_m + np.cumsum(speed * np.sin(heading)) * STEP_S
        # The driver's wobble within the lane moves the steering wheel, but is too small to change the course.
        lane = 4e-4 * np.sin(distance / 27.0) + 2e-4 * np.sin(distance / 8.3)
        curvature = lane + segment.turn_rad * slope / np.maximum(speed, 0.5)
        # This is a bicycle model without slip, which is good enough for the low lateral accelerations in a town.
        steering = np.degrees(np.arctan(curvature * WHEELBASE_M)) * STEERING_RATIO
        altitude, grade = _terrain(distance)
        time: Column = second + _TIME_S
        gap, relative = _lead(segment, time, speed, acceleration)
        motion = Motion(
            time_s=time,
            speed_mps=speed,
            acceleration_mps2=acceleration,
            yaw_rate_rps=curvature * speed,
            curvature_per_m=curvature,
            heading_rad=heading,
            distance_m=distance,
            latitude_deg=_ORIGIN_LATITUDE + north / _M_PER_DEG,
            longitude_deg=_ORIGIN_LONGITUDE + east / (_M_PER_DEG * math.cos(math.radians(_ORIGIN_LATITUDE))),
            altitude_m=altitude,
            grade=grade,
            steering_deg=steering,
            steering_deg_per_s=np.diff(steering, prepend=self._steering) / STEP_S,
            lead_gap_m=gap,
            lead_speed_mps=relative,
        )
        self._distance_m = float(distance[-1])
        self._east_m, self._north_m = float(east[-1]), float(north[-1])
        self._steering = float(steering[-1])
        if elapsed_s + 1 == segment.duration_s:
            self._heading = (self._heading + segment.turn_rad) % (2 * math.pi)
        return motion


def _terrain(distance_m: Column) -> tuple[Column, Column]:
    """Return (altitude, grade) of gentle hills along the way."""
    altitude = 519.0 + 9.0 * np.sin(distance_m / 610.0) + 2.5 * np.sin(distance_m / 170.0 + 1.0)
    grade = 9.0 / 610.0 * np.cos(distance_m / 610.0) + 2.5 / 170.0 * np.cos(distance_m / 170.0 + 1.0)
    return altitude, grade


def _lead(segment: Segment, time_s: Column, speed: Column, acceleration: Column) -> tuple[Column, Column]:
    """Return (gap, relative speed) of the vehicle ahead, or zeros if there is none.

    The gap varies around a time gap of 1.5 s.
    """
    if not segment.following:
        return constant(0.0), constant(0.0)
    gap = 4.0 + 1.5 * speed + 1.8 * np.sin(time_s / 6.0)
    return gap, 1.5 * acceleration + 0.3 * np.cos(time_s / 6.0)
