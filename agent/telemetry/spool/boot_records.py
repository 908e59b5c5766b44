"""Stores the boots of the machine in which batches were stored, from which agent.telemetry.spool.boots tells ages.

Each append needs the boots, so they are held in memory as well.  If a transaction does not commit, the index must be
closed, because memory then differs from the disk.

Methods raise sqlite3.Error.  Methods that write must be called within a transaction.
"""

import sqlite3
from typing import Final

from agent.formats.up.columns import Clock
from agent.telemetry.spool.boots import Boot, Moment, observe

UNTIL_STEP_US: Final = 60_000_000
"""The last moment of a boot is written once a minute, because each write costs a page of flash.

Ages lose up to a minute for each boot.
"""
DATE_STEP_US: Final = 1_000_000
"""The date of a boot is written again if it moved by a second.

Smaller moves only show that the two clocks are read some microseconds apart.
"""
MOST: Final = 1_024
"""This many of the newest boots are kept even without batches, enough for a month of 34 boots a day."""


class Boots:
    """Reads and writes the boots of one index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._boots: tuple[Boot, ...] | None = None

    def all(self) -> tuple[Boot, ...]:
        """Return the boots that are stored, the oldest first."""
        if self._boots is None:
            columns = "number, boot_id, until_us, earliest_us, latest_us"
            rows = self._db.execute(f"SELECT {columns} FROM boots ORDER BY number")  # noqa: S608 (a constant)
            self._boots = tuple(Boot(*row) for row in rows)
        return self._boots

    def moment(self, now: Clock) -> Moment:
        """Return the moment of the reading `now`, without storing anything."""
        return Moment(observe(self.all(), now)[-1].number, now.boottime_us, now.wall_us)

    def note(self, now: Clock) -> Moment:
        """Store what the reading `now` tells about the present boot, and return its moment."""
        before = self.all()
        present = observe(before, now)[-1]
        if not before or _differ(before[-1], present):
            self._prune(present.number)
            values = present.number, present.boot_id, present.until_us, present.earliest_us, present.latest_us
            self._db.execute("REPLACE INTO boots VALUES (?, ?, ?, ?, ?)", values)
            self._boots = None
        return Moment(present.number, now.boottime_us, now.wall_us)

    def _prune(self, present: int) -> None:
        """Remove the boots before the oldest batch, and boots without batches that are not among the newest MOST.

        No age needs the former.  Without the latter, some ages are too small.
        """
        self._db.execute(
            "DELETE FROM boots WHERE number < ? AND (number < (SELECT coalesce(min(boot), ?) FROM batches)"
            " OR number <= ? AND NOT EXISTS (SELECT 1 FROM batches WHERE batches.boot = boots.number))",
            (present, present, present - MOST),
        )


def _differ(stored: Boot, present: Boot) -> bool:
    """Return whether `present` differs from `stored` by enough to be written."""
    if (stored.number, stored.earliest_us is None) != (present.number, present.earliest_us is None):
        return True
    dates = (stored.earliest_us, present.earliest_us), (stored.latest_us, present.latest_us)
    moved_us = max(abs((new or 0) - (old or 0)) for old, new in dates)
    return present.until_us - stored.until_us >= UNTIL_STEP_US or moved_us >= DATE_STEP_US
