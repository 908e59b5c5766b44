"""Limits how many different days of the lake one vehicle may fill.

Each day is a partition of the lake, and every query opens the files of each partition.  A hostile vehicle could name
any of the 84,000 days from 1970 to 2200.
"""

from collections import OrderedDict
from typing import Final

from fleet.receiving.allowance import REMEMBERED, Allowance

MOST: Final = 64
PER_S: Final = 1 / 3_600
"""How many further days a vehicle may begin at once, and how many a second in the long run.

A vehicle that was offline for two months, or whose clock jumps a few times a day, stays below these numbers.
"""

KNOWN: Final = 256
"""The limit of days that are remembered for one vehicle."""


class Days:
    """Remembers the days of each vehicle since the receiver started."""

    def __init__(self) -> None:
        self._allowance = Allowance(MOST, PER_S)
        self._known: OrderedDict[str, OrderedDict[int, None]] = OrderedDict()

    def allow(self, vehicle: str, day: int, now_s: float) -> bool:
        """Return whether the vehicle may fill this day, which is counted from 1970-01-01."""
        known = self._known.setdefault(vehicle, OrderedDict())
        self._known.move_to_end(vehicle)
        if day not in known and not self._allowance.take(vehicle, now_s):
            return False
        known[day] = None
        known.move_to_end(day)
        if len(known) > KNOWN:
            known.popitem(last=False)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True
