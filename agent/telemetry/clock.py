"""The clocks of this machine, read together, so that the receiver can correct times of a wrong wall clock.

Reads /proc and the kernel's clocks.  Wall time is the date.  CLOCK_BOOTTIME, which is never set, measures
intervals, and the boot id names the boot from which it counts.
"""

import time
from contextlib import suppress
from math import isfinite
from pathlib import Path

from agent.formats.up.columns import Clock, ClockQuality
from agent.system.durable import write_file

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


class MachineClock:
    """Reads the clocks of the machine."""

    def __init__(self, *, recorded: bool = False) -> None:
        """`recorded` means that frames carry times of a recording or a simulation, not of a clock of this machine."""
        self._boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        self._recorded = recorded

    def read(self) -> Clock:
        """Return wall clock and boot time of this moment, in microseconds."""
        return Clock(
            quality=self._quality(),
            boot_id=self._boot_id,
            wall_us=time.time_ns() // 1_000,
            boottime_us=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000,
        )

    def _quality(self) -> ClockQuality:
        if self._recorded:
            return ClockQuality.RECORDED
        # systemd-timesyncd leaves this file at its first synchronisation.  Without it no better quality can be claimed.
        return ClockQuality.NETWORK if _SYNCHRONISED.exists() else ClockQuality.UNSYNCHRONISED


class SteadyClock:
    """Returns seconds since the Unix epoch to compute ages; setting the wall clock does not change it.

    Its first reading of a boot holds for that boot, over restarts as well (kept in `file`), and CLOCK_BOOTTIME counts
    on.  It trusts the wall clock only for the time that the machine was off.
    """

    def __init__(self, file: Path) -> None:
        """`file` need not be durable; where it cannot be written, the clock is steady until the next start."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        kept = _kept_offset_s(file, boot_id)
        self._offset_s = time.time() - _boottime_s() if kept is None else kept
        if kept is None:
            with suppress(OSError):
                write_file(file, f"{boot_id} {self._offset_s!r}\n".encode())

    def __call__(self) -> float:
        """Return the time of this moment."""
        return _boottime_s() + self._offset_s


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _kept_offset_s(file: Path, boot_id: str) -> float | None:
    try:
        of, offset_s = file.read_text().split(" ")
        return float(offset_s) if boot_id and of == boot_id and isfinite(float(offset_s)) else None
    except (OSError, ValueError):
        return None
