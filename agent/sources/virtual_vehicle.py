"""Deliver the frames of the demonstration vehicle, which the package `simulator` computes."""

import importlib.util
import math
from collections.abc import AsyncIterator
from typing import Final

from agent.errors import Permanent
from agent.sources.lean_import import without_asammdf
from agent.sources.pacing import DRAIN_MS, paced
from can_dbc.frames import FrameBlock

_CHUNK_MAX_S: Final = 10  # longer arrays gain no speed and only take memory


class VirtualVehicle:
    """Delivers a simulated drive at `speed` times real time, or without waiting if `speed` is 0."""

    def __init__(
        self,
        seed: int,
        start_ns: int,
        duration_s: float | None,
        speed: float,
        buses: tuple[str, str] = ("can0", "can1"),
        *,
        name: str = "vehicle",
        drain_ms: int = DRAIN_MS,
    ) -> None:
        """Prepare the drive that `simulator.frames.frames` describes.  Without `duration_s`, the drive never ends.

        Raises: Permanent if the simulator is not installed.
        """
        # `make install` leaves the simulator out, so that no head unit can send simulated driving.
        if importlib.util.find_spec("simulator") is None:
            raise Permanent(
                f'source {name}: kind = "virtual_vehicle" needs the package `simulator`, which vehicles do not '
                "get; configure packet_ring, python_can or replay, or run the agent from a checkout of the project"
            )
        self.name = name
        self.buses = buses
        self.rest = None  # a simulated drive produces no frame before it is due
        self.waiting = None
        self._seed = seed
        self._start_ns = start_ns
        self._duration_s = duration_s
        self._speed = speed
        self._drain_ms = drain_ms

    def blocks(self) -> AsyncIterator[FrameBlock]:
        """Yield the frames of the drive when they are due, until `duration_s` has passed."""
        # The simulator is imported with the first drive, because `check` does not need it.
        # Its library cantools imports python-can.
        with without_asammdf():
            from simulator.frames import frames  # noqa: PLC0415

        # Chunks of one second keep a live drive responsive.  Faster drives gain from longer arrays.
        chunk_s = min(max(1, math.ceil(self._speed)), _CHUNK_MAX_S) if self._speed else _CHUNK_MAX_S
        drive = frames(self._seed, self._start_ns, self._duration_s, self.buses, chunk_s=chunk_s)
        return paced(drive, speed=self._speed, drain_ms=self._drain_ms)
