"""Reads the clocks of this machine together, so that the receiver can correct the times of a wrong wall clock.

The wall clock gives the date, and may be set at any time.  CLOCK_BOOTTIME is never set, so it measures intervals.  The
boot id names the boot from which CLOCK_BOOTTIME counts.
"""

import time
from contextlib import suppress
from math import isfinite
from pathlib import Path

from agent.formats.up.columns import Clock, ClockQuality
from agent.system.boot import boot_id
from agent.system.durable import write_file

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


class SteadyClock:
    """A clock for computing ages, in seconds since the Unix epoch.  Setting the wall clock does not change its time.

    The wall clock is read once in each boot, and CLOCK_BOOTTIME counts on from that reading.  `file` keeps the offset
    between the two clocks, so that it survives restarts of the agent.  After a reboot, the wall clock is read again,
    because CLOCK_BOOTTIME does not count the time for which the machine was off.
    """

    def __init__(self, file: Path) -> None:
        """Read the offset from `file` if it belongs to this boot, or else store a new offset in `file`.

        `file` need not survive a power cut.  If `file` cannot be written, the clock is steady only until the next start
        of the agent.
        """
        boot = boot_id()
        kept = _kept_offset_s(file, boot)
        self._offset_s = time.time() - _boottime_s() if kept is None else kept
        if kept is None:
            with suppress(OSError):
                write_file(file, f"{boot} {self._offset_s!r}\n".encode())

    def __call__(self) -> float:
        """Return the time of this moment in seconds since the Unix epoch."""
        return _boottime_s() + self._offset_s


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _kept_offset_s(file: Path, boot: str) -> float | None:
    try:
        of, offset_s = file.read_text().split(" ")
        return float(offset_s) if boot and of == boot and isfinite(float(offset_s)) else None
    except (OSError, ValueError):
        return None
