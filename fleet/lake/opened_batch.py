"""Defines a batch that was verified and opened, on its way into the lake.  Pure."""

from dataclasses import dataclass
from typing import Final

from agent.errors import Untrusted
from agent.formats.up.columns import Window
from agent.formats.up.seal import Header

LATEST_US: Final = 7_258_118_400 * 1_000_000
"""2200-01-01 in microseconds since the Unix epoch.  Readers of the lake fail on times far outside 1970 to 2200."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedBatch:
    """Holds a batch that was verified and opened.

    `sealed_bytes` is the size of the sealed batch as it arrived, and `digest` is its digest.
    """

    header: Header
    window: Window
    sealed_bytes: int
    received_at_us: int
    digest: bytes


def check_times(header: Header, window: Window) -> None:
    """Check that all times of a batch lie between 1970 and 2200, and that its CLOCK_BOOTTIME is below 230 years.

    Raises: Untrusted if one of them does not.
    """
    times = [header.sealed_at_us, window.start_us, window.end_us, window.clock.wall_us, window.clock.boottime_us]
    times += [event.t_us for event in window.events]
    for group in window.groups:
        if group.t_us.size:
            times += [int(group.t_us.min()), int(group.t_us.max())]
    if not all(0 <= t_us < LATEST_US for t_us in times):
        raise Untrusted(
            f"A time of batch {header.seq} lies outside 1970 to 2200. Check the clock of vehicle {header.vehicle}."
        )
