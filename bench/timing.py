"""Times of several ways to do one job, measured in turns so that a busy machine is busy for all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

SHORTEST_S: Final = 0.05
"""A job shorter than this is repeated within a measurement: caches and clocks favour nobody then."""


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way: once each untimed, then `rounds` times in turns, the collector of garbage off."""
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
