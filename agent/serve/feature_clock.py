"""Tell the earliest and the latest time that it can be now, for features that begin and end (`validity.Moment`).

What lets time pass, and what it counts for:

    the fleet's latest signature, and the time of the build         certain and possible
    CLOCK_BOOTTIME since then, which no program can set             certain and possible
    the wall clock, if the network or GNSS has set it               certain and possible
    the wall clock otherwise (1970, 2099, a clock with a battery)   possible only

A clock that is too early is therefore corrected by the other sources.  A clock that is too late ends features early,
and starts none.

`certain` without the wall clock is stored every STORE_S, so the time that the vehicle was switched on counts across
restarts and power cuts.  Limit: if the wall clock is set back while the vehicle has no connection, the time that it was
switched off does not count.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.formats.down.validity import Moment
from agent.formats.up.columns import Clock
from agent.system.durable import write_file

STORE_S: Final = 600.0
"""A power cut forgets at most ten minutes, and the flash takes 144 small writes a day."""


class _Progress(msgspec.Struct, frozen=True):
    """The time that had certainly passed at `boottime_us` of the boot `boot_id`."""

    certain_s: float
    boot_id: str
    boottime_us: int


class FeatureClock:
    """Reads the time.  Any thread may ask; the call blocks while the file is written."""

    def __init__(self, file: Path, read: Callable[[], Clock], signed_s: Callable[[], int], built_s: int) -> None:
        """Store progress in `file`.  `read` reads the clocks of the machine.

        `signed_s` returns the time of the fleet's latest signature.  `built_s` is the time of the build.
        """
        self._file = file
        self._read = read
        self._signed_s = signed_s
        self._built_s = built_s
        self._stored = _read_progress(file)
        self._progress = self._stored
        self._lock = threading.Lock()

    def read(self) -> Moment:
        """Return the present moment."""
        with self._lock:
            return self._moment()

    def _moment(self) -> Moment:
        now, signed_s = self._read(), self._signed_s()
        before = self._progress
        certain_s = float(max(signed_s, self._built_s))
        if before is not None:
            # In another boot, or if the machine tells no boot id and its clock began again, no time is known to pass.
            same = before.boot_id == now.boot_id and before.boottime_us <= now.boottime_us
            passed_s = (now.boottime_us - before.boottime_us) / 1e6 if same else 0.0
            certain_s = max(certain_s, before.certain_s + passed_s)
        self._progress = _Progress(certain_s, now.boot_id, now.boottime_us)
        self._store()
        wall_s = now.wall_us / 1e6
        if now.is_trusted:
            certain_s = max(certain_s, wall_s)
        return Moment(certain_s, max(certain_s, wall_s), signed_s)

    def _store(self) -> None:
        progress, stored = self._progress, self._stored
        assert progress is not None
        if stored is not None and 0 <= progress.certain_s - stored.certain_s < STORE_S:
            return
        # Without a place on the disk, the time counts until the next restart only.
        with contextlib.suppress(OSError):
            write_file(self._file, msgspec.json.encode(progress))
        self._stored = progress


def _read_progress(file: Path) -> _Progress | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Progress)
    except (OSError, msgspec.DecodeError):
        return None
