"""Reads the clocks of this machine together, so that the times of a wrong wall clock can be corrected.

The wall clock gives the date, and may be set at any time.  CLOCK_BOOTTIME is never set, so it measures intervals.  The
boot id names the boot from which CLOCK_BOOTTIME counts.
"""

import time
from pathlib import Path

from agent.formats.up.columns import Clock, ClockQuality
from agent.system.boot import boot_id

_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


class MachineClock:
    """Reads the clocks of the machine."""

    def __init__(self, *, recorded: bool = False) -> None:
        """`recorded` means that frames carry times of a recording or a simulation, not of a clock of this machine."""
        self._boot_id = boot_id()
        self._recorded = recorded

    def read(self) -> Clock:
        """Return the wall time and the boot time of this moment in microseconds, with the quality of the wall clock."""
        return Clock(
            quality=self._quality(),
            boot_id=self._boot_id,
            wall_us=time.time_ns() // 1_000,
            boottime_us=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000,
        )

    def _quality(self) -> ClockQuality:
        if self._recorded:
            return ClockQuality.RECORDED
        # systemd-timesyncd creates this file when it has first synchronised the wall clock.
        return ClockQuality.NETWORK if _SYNCHRONISED.exists() else ClockQuality.UNSYNCHRONISED
