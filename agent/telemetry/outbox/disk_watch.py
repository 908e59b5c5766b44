"""Logs once that the disk refuses or lacks room, and once that this has ended."""

import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from agent.errors import Transient
from agent.telemetry.spool.shortage import RESERVE, Shortages

REFUSES: Final = "refuses"
_BEGAN: Final = {REFUSES: "disk_refuses", RESERVE: "reserve_not_kept"}
_ENDED: Final = {REFUSES: "disk_accepts_again", RESERVE: "reserve_kept_again"}
_log = structlog.get_logger()


class DiskWatch:
    """Compares the troubles of the disk with those of the look before.

    `shortages` has the texts of the shortages that were found last.
    """

    def __init__(self, ask: Callable[[], Shortages]) -> None:
        """`ask` returns the present shortages; it blocks, and raises Transient while the disk refuses."""
        self._ask = ask
        self._present: dict[str, str] = {}
        self.shortages: Shortages = {}

    def look(self, problem: str | None) -> None:
        """Log what has begun or ended.  Blocking.  `problem` says why the disk refuses, or is None."""
        # If the disk cannot be asked, the shortages that were found last still hold.
        with contextlib.suppress(Transient):
            self.shortages = self._ask()
        troubles = {**self.shortages, **({} if problem is None else {REFUSES: problem})}
        for name, text in troubles.items():
            if name not in self._present:
                _log.error(_BEGAN.get(name, "eviction_began"), **_kind(name), reason=text)
        for name in self._present.keys() - troubles.keys():
            _log.info(_ENDED.get(name, "eviction_ended"), **_kind(name))
        self._present = troubles


def _kind(name: str) -> dict[str, str]:
    return {} if name in _BEGAN else {"limit": name}
