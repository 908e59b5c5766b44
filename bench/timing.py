"""Times several functions in turns, so that other load on the machine affects all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

SHORTEST_S: Final = 0.05
"""The least time of a measurement.  A shorter job is repeated, so that caches and the clock's steps do not matter."""


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of a call of each function in `ways`.

    A first call only shows how often to repeat the function in one measurement.  The functions are then measured in
    turns, `rounds` times each, while the garbage collector is off.
    """
    repeats = {name: max(1, round(SHORTEST_S / _seconds(way, 1))) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            gc.disable()
            try:
                seconds[name].append(_seconds(way, repeats[name]))
            finally:
                gc.enable()
    return {name: statistics.median(times) for name, times in seconds.items()}


def _seconds(way: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        way()
    return (time.perf_counter() - started) / repeats
