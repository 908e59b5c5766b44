"""Follow a CAN interface that comes and goes, and bind its packet ring whenever the interface is there."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from agent.sources import OPENING
from agent.sources.interfaces import interface_up
from agent.sources.ring_socket import PacketRing

# A missing interface is looked for at this interval.  Frames that the bus carries in between are lost, and a look costs
# only some system calls.
RETRY_S: Final = 0.5
_log = structlog.get_logger()


class Link:
    """Binds a ring to its interface whenever the interface is there, and logs each reason for waiting once.

    `reason` says why the interface cannot be used now, or is None.
    """

    def __init__(self, ring: PacketRing, lost: Callable[[int, int, int, str], None]) -> None:
        """Follow the interface of `ring`.

        When the interface is back after it was down or missing, `lost` is called with four arguments: the count 0, the
        start and the end of the absence (Unix epoch, ns), and the reason.
        """
        self._ring = ring
        self._lost = lost
        self._waiting = True
        # The value is None until the interface has been there once, because no frame was missed until then.
        self._away_since_ns: int | None = None
        self._logged: str | None = None
        self.reason: str | None = OPENING
        self._next_try_s = 0.0

    def look(self) -> None:
        """Check the interface, and bind the ring if the interface has come back.  Call this method at every drain.

        Raises: Permanent if the interface is not a CAN interface.
        """
        if not self._waiting:
            if not self._ring.went_away():
                return
            self._waiting = True
            self._away_since_ns = time.time_ns()
            self._next_try_s = 0.0
        if time.monotonic() < self._next_try_s:
            return
        self._next_try_s = time.monotonic() + RETRY_S
        self.reason = reason = self._reason()
        if reason is None:
            self._came_back()
        elif reason != self._logged:
            _log.warning("bus_waiting", bus=self._ring.interface, reason=reason)
            self._logged = reason

    def _reason(self) -> str | None:
        """Bind the ring if necessary.  Return why the interface cannot be used, or None if the ring listens on it."""
        interface = self._ring.interface
        # This call clears a pending error, which would otherwise count as a new loss at the next `look`.
        self._ring.went_away()
        up = interface_up(interface)
        if up is None:
            return f"there is no interface {interface}; the agent waits until it is there"
        if not up:
            return f"interface {interface} is down; bring it up: ip link set {interface} up"
        if not self._ring.bound():
            try:
                self._ring.bind()
            except OSError as error:  # The interface went away between the two calls.
                return f"interface {interface} cannot be used: {error.strerror}; the agent tries again"
        return None

    def _came_back(self) -> None:
        _log.info("bus_open", bus=self._ring.interface)
        self._waiting = False
        self._logged = None
        if self._away_since_ns is not None:
            self._lost(0, self._away_since_ns, time.time_ns(), "interface away")
            self._away_since_ns = None
