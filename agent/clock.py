"""The clocks of this machine, read together, so that the receiver can correct what a wrong wall clock stamped.

Reads /proc and the kernel's clocks.  Wall time says when; CLOCK_BOOTTIME, which no one sets, says how long ago; the
boot id says which boot the second one counts from.
"""

import time
from pathlib import Path

from agent.formats.columns import Clock, ClockQuality

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


class MachineClock:
    """Readings of the clocks of the machine."""

    def __init__(self, *, recorded: bool = False) -> None:
        """`recorded`: frames carry times of a recording or a simulation, which no clock of ours vouches for."""
        self._boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        self._recorded = recorded

    def read(self) -> Clock:
        """Wall clock and boot time of this moment, microseconds."""
        return Clock(
            quality=self._quality(),
            boot_id=self._boot_id,
            wall_us=time.time_ns() // 1_000,
            boottime_us=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000,
        )

    def _quality(self) -> ClockQuality:
        if self._recorded:
            return ClockQuality.RECORDED
        # systemd-timesyncd leaves this file at its first synchronisation; without it we claim nothing better.
        return ClockQuality.NETWORK if _SYNCHRONISED.exists() else ClockQuality.UNSYNCHRONISED
