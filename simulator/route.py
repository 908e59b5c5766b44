"""Generates the route of the virtual vehicle as an endless sequence of segments.

Pure.  The route depends only on a seed.  A segment takes a whole number of seconds.  Within a segment, speed and
heading change along the same smooth step.  Speed, acceleration and yaw rate are therefore continuous, and their bounds
are known in advance.  A segment starts at the speed at which the segment before it ends.  A stop is a segment of speed
0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from simulator.columns import Column

PEAK: Final = 1.5  # steepest slope of the smooth step, in units of its mean slope


class Stop(IntEnum):
    """Says whether the vehicle stands, and why."""

    NONE = 0
    TRAFFIC = 1
    KERB = 2  # The selector is in P, and a passenger gets in or out.


@dataclass(frozen=True, slots=True)
class Segment:
    """Describes `duration_s` seconds of the route, with speeds from `start_mps` to `end_mps`.

    The heading changes by `turn_rad`; left is positive.
    """

    duration_s: int
    start_mps: float
    end_mps: float
    turn_rad: float = 0.0
    stop: Stop = Stop.NONE
    indicator: int = 0  # -1 right, 1 left
    limit_kmh: int = 50
    following: bool = False  # another vehicle is ahead

    def __post_init__(self) -> None:
        assert self.duration_s > 0
        assert self.start_mps >= 0
        assert self.end_mps >= 0


def smooth_step(x: Column) -> Column:
    """Return a curve that rises smoothly from 0 to 1 while x goes from 0 to 1.  It is flat at both ends."""
    return x * x * (3.0 - 2.0 * x)


def smooth_slope(x: Column) -> Column:
    """Return the derivative of `smooth_step`."""
    return 6.0 * x * (1.0 - x)


def segments(seed: int) -> Iterator[Segment]:
    """Yield an endless route: the departure from the kerb, then block after block of a town."""
    rng = np.random.default_rng([seed, 1])
    yield Segment(4, 0.0, 0.0, stop=Stop.KERB)
    blocks_to_kerb = int(rng.integers(2, 5))
    while True:
        yield from _block(rng, kerb=blocks_to_kerb == 0)
        blocks_to_kerb = int(rng.integers(3, 7)) if blocks_to_kerb == 0 else blocks_to_kerb - 1


def _block(rng: np.random.Generator, *, kerb: bool) -> Iterator[Segment]:
    """Yield the segments from standstill along one or two streets to the next standstill.

    The next standstill is a stop at the kerb if `kerb` is true, and otherwise a stop in traffic.
    """
    limit_kmh = int(rng.choice([30, 50, 50, 50, 70]))
    following = bool(rng.random() < 0.6)
    pull_out = 1 if rng.random() < 0.2 else 0
    cruise = limit_kmh / 3.6 * rng.uniform(0.92, 1.0)
    speed = 0.0

    def to(end: float, mean_mps2: float, *, indicator: int = 0) -> Segment:
        nonlocal speed
        duration_s = max(2, math.ceil(abs(end - speed) / mean_mps2))
        segment = Segment(duration_s, speed, end, indicator=indicator, limit_kmh=limit_kmh, following=following)
        speed = end
        return segment

    yield to(cruise, rng.uniform(0.9, 1.9), indicator=pull_out)
    for _ in range(int(rng.integers(1, 5))):
        yield to(cruise * rng.uniform(0.88, 1.02), 0.25)
    if rng.random() < 0.55:
        side = 1 if rng.random() < 0.5 else -1
        slow = rng.uniform(4.5, 6.5)
        yield to(slow, rng.uniform(0.9, 1.5), indicator=side)
        turn_rad = side * rng.uniform(1.2, 1.75)
        # The lateral acceleration peaks at PEAK * turn / duration * speed.  The duration keeps this peak at or below
        # 2.5 m/s².
        duration_s = math.ceil(PEAK * abs(turn_rad) * slow / 2.5)
        yield Segment(duration_s, slow, slow, turn_rad, indicator=side, limit_kmh=limit_kmh, following=following)
        yield to(cruise, rng.uniform(0.8, 1.6))
        yield to(cruise * rng.uniform(0.9, 1.0), 0.3)
    else:
        # The street bends, and the vehicle keeps its speed.
        turn_rad = rng.uniform(-0.5, 0.5)
        duration_s = max(4, math.ceil(PEAK * abs(turn_rad) * speed / 2.0))
        yield Segment(duration_s, speed, speed, turn_rad, limit_kmh=limit_kmh, following=following)
    yield to(0.0, rng.uniform(0.9, 1.9), indicator=-1 if kerb else 0)
    dwell_s = int(rng.integers(22, 40)) if kerb else int(rng.integers(4, 25))
    yield Segment(
        dwell_s,
        0.0,
        0.0,
        stop=Stop.KERB if kerb else Stop.TRAFFIC,
        limit_kmh=limit_kmh,
        following=following and not kerb,
    )
