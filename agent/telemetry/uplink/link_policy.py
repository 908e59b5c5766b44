"""Decides which lanes may use the present link, and counts a day's bytes on metered links.  This file is pure.

A metered link (paid by the byte) carries only `metered_lanes`.  The backlog is left out once `daily_bytes` were sent
over metered links on the current day.  Any other link carries all lanes, and so does a link of unknown kind.

A day is 24 hours of the clock that counts from boot.  That clock is never set.  A jump of the wall clock can therefore
neither begin a new day early nor keep the present day from ending.  The wall clock is used only to find out how long
the machine was off.  The time off counts only if the network or GNSS had set the wall clock both before the machine
went off and after it came on.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock

DAY_S: Final = 86_400.0


class DayUse(msgspec.Struct, frozen=True):
    """The bytes sent over metered links in the current day, which began `elapsed_s` ago."""

    used_bytes: int = 0
    elapsed_s: float = 0.0

    def sent(self, size_bytes: int) -> "DayUse":
        """Return a copy with `size_bytes` added."""
        return DayUse(self.used_bytes + size_bytes, self.elapsed_s)

    def after(self, seconds: float) -> "DayUse":
        """Return a copy that is `seconds` later.  A new day begins with 0 bytes, and negative `seconds` count as 0."""
        elapsed_s = self.elapsed_s + max(0.0, seconds)
        return DayUse(self.used_bytes, elapsed_s) if elapsed_s < DAY_S else DayUse(0, elapsed_s % DAY_S)


class LinkPolicy(msgspec.Struct, frozen=True):
    """The fleet's rules for metered links."""

    metered_lanes: Collection[Lane]
    daily_bytes: int

    def lanes(self, metered: bool | None, today: DayUse) -> tuple[Lane, ...]:
        """Return the lanes that may use a link, in the order of sending.

        `metered` is None if it is unknown whether the link is metered.
        """
        if not metered:
            return tuple(Lane)
        spent = today.used_bytes >= self.daily_bytes
        return tuple(lane for lane in Lane if lane in self.metered_lanes and not (lane is Lane.BACKLOG and spent))


def seconds_between(before: Clock, now: Clock) -> float:
    """Return the seconds that certainly passed between two readings of the clock."""
    since_boot_s = now.boottime_us / 1e6
    if before.boot_id == now.boot_id:
        return max(0.0, since_boot_s - before.boottime_us / 1e6)
    if before.is_trusted and now.is_trusted:
        return min(max(since_boot_s, (now.wall_us - before.wall_us) / 1e6), DAY_S)
    return since_boot_s
