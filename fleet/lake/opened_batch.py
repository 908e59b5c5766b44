"""A batch that was verified and opened, on its way into the lake.  Pure."""

from dataclasses import dataclass
from typing import Final

from agent.errors import Untrusted
from agent.formats.up.catalogue import Catalogue
from agent.formats.up.columns import Window
from agent.formats.up.seal import Header

LATEST_US: Final = 7_258_118_400 * 1_000_000
"""2200-01-01.  A time beyond it, or before 1970, is not a time, and readers of the lake would fail on it."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedBatch:
    """A batch that was verified and opened; `sealed_bytes` is its size on the air.

    `catalogue` is the digest of the catalogue that the batch refers to, `carried` the catalogue that it brings.
    """

    header: Header
    window: Window
    sealed_bytes: int
    received_at_us: int
    catalogue: bytes | None = None
    carried: Catalogue | None = None


def check_times(header: Header, window: Window) -> None:
    """Raise Untrusted where a time of the batch lies outside 1970 to 2200."""
    times = [header.sealed_at_us, window.start_us, window.end_us, window.clock.wall_us]
    times += [event.t_us for event in window.events]
    for group in window.groups:
        if group.t_us.size:
            times += [int(group.t_us.min()), int(group.t_us.max())]
    if not all(0 <= t_us < LATEST_US for t_us in times):
        raise Untrusted("a time of the batch lies outside 1970 to 2200: the vehicle's clock is wrong")
