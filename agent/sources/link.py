"""Link: a CAN interface that comes and goes, and the ring that follows it."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from agent.sources.interfaces import interface_up
from agent.sources.ring_socket import PacketRing

# An interface that appears is taken up this soon.  A frame that the bus carries before is lost, and looking is cheap:
# some system calls.
RETRY_S: Final = 0.5
_log = structlog.get_logger()


class Link:
    """Binds a ring to its interface whenever that is there, and logs once what the ring waits for."""

    def __init__(self, ring: PacketRing, lost: Callable[[int, int, int, str], None]) -> None:
        """`lost` takes count, first and last time (Unix epoch, ns) and reason of frames that the bus carried unread."""
        self._ring = ring
        self._lost = lost
        self._waiting = True
        # None before the interface was there for the first time: until then no frame was missed.
        self._away_since_ns: int | None = None
        self._logged: str | None = None
        self._next_try_s = 0.0

    def look(self) -> None:
        """Look after the interface, at every drain.  Raises: Permanent if it is no CAN interface."""
        if not self._waiting:
            if not self._ring.went_away():
                return
            self._waiting = True
            self._away_since_ns = time.time_ns()
            self._next_try_s = 0.0
        if time.monotonic() < self._next_try_s:
            return
        self._next_try_s = time.monotonic() + RETRY_S
        reason = self._reason()
        if reason is None:
            self._came_back()
        elif reason != self._logged:
            _log.warning("bus_waiting", bus=self._ring.interface, reason=reason)
            self._logged = reason

    def _reason(self) -> str | None:
        """Return why nothing can come from the interface, or None if the ring listens on it."""
        interface = self._ring.interface
        # An error that is still pending is about the time before now: it must not count as a new loss at the next look.
        self._ring.went_away()
        up = interface_up(interface)
        if up is None:
            return f"there is no interface {interface}"
        if not up:
            return f"interface {interface} is down; bring it up: ip link set {interface} up"
        if not self._ring.bound():
            try:
                self._ring.bind()
            except OSError as error:  # the interface went away between the two calls
                return f"interface {interface} cannot be used: {error.strerror}"
        return None

    def _came_back(self) -> None:
        _log.info("bus_open", bus=self._ring.interface)
        self._waiting = False
        self._logged = None
        if self._away_since_ns is not None:
            self._lost(0, self._away_since_ns, time.time_ns(), "interface away")
            self._away_since_ns = None
