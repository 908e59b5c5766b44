"""Capture a CAN interface through a packet ring of the kernel.

Once per drain interval, the source reads all frames that have arrived, as arrays.  A frame is then *held*: its slot
goes back to the kernel only when the frame is durable (`release`).  The ring outlives the process if the service
manager keeps the ring's descriptor (`kept_rings`).  The next process then reads the held frames once more, and goes on
with the first unread frame.

Frames are lost if the ring has no free slot.  The kernel counts lost frames (PACKET_STATISTICS), and the source reports
them as a BusLoss.  A time without the interface is also reported as a BusLoss, with the count 0 (unknown).
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from agent.errors import Permanent
from agent.sources import OPENING, BusLoss
from agent.sources.kept_rings import adopt, kept_ring_id, new_ring_id
from agent.sources.link import Link
from agent.sources.ring_socket import PacketRing, unavailable
from agent.system.descriptors import Descriptors
from can_dbc.frames import FrameBlock

# Apps see a value at most this late.  Shorter intervals would wake the machine more often and make no frame cheaper.
DRAIN_MS: Final = 100
# If more than this share of the slots is held, frames are made durable ahead of time.  The other slots are a reserve
# for stalls of the disk.
PRESSED: Final = 0.5


class PacketRingSource:
    """Captures the frames of one interface."""

    def __init__(
        self,
        *,
        bus: str,
        interface: str,
        drain_ms: int = DRAIN_MS,
        ring_bytes: int = 8_000_000,
        on_loss: Callable[[BusLoss], None],
        descriptors: Descriptors | None = None,
    ) -> None:
        """Prepare to capture; `blocks` opens the ring.

        `on_loss` is called in the event loop, at most once per drain interval for each kind of loss.  Held frames fill
        the ring, so a caller that stores nothing must release the frames of each block at once.
        """
        self.name = self.position_name = bus
        self.buses = (bus,)
        self._interface = interface
        self._drain_s = drain_ms / 1_000
        self._ring_bytes = ring_bytes
        self._on_loss = on_loss
        self._descriptors = descriptors
        self._new_ring_id = new_ring_id()
        self._first_position = 0
        self._looked_ns = 0
        self._ring: PacketRing | None = None
        self._link: Link | None = None
        self._releasing = threading.Lock()
        self.rest: FrameBlock | None = None

    # ---- for the caller that makes frames durable (agent.telemetry.collect.holdings)

    @property
    def held_in(self) -> str:
        """Return the id of the ring that `blocks` will read, or "" if the ring will not outlive this source.

        The ring may be one that an earlier reader or the start of the agent left, or one that `blocks` will open.
        """
        if self._descriptors is None:
            return ""
        return kept_ring_id(self._interface, self._descriptors) or self._new_ring_id

    def begin(self, *, used: int, needed: int) -> None:
        """Let new frames have positions from `used` on.  Call this method before `blocks`.

        `needed` is not used, because the ring itself knows which frames must be read again.
        """
        self._first_position = used

    def release(self, position: int) -> None:
        """Free the slots of all frames before `position`, which are not needed any more.  Any thread may call this."""
        with self._releasing:
            if self._ring is not None:
                self._ring.release(position)

    @property
    def pressed(self) -> bool:
        """Return whether the ring is so full of held frames that they should be made durable now."""
        ring = self._ring
        return ring is not None and ring.held > PRESSED * ring.slots

    @property
    def waiting(self) -> str | None:
        """Return why the interface delivers nothing now, or None if it is there."""
        return OPENING if self._link is None else self._link.reason

    # ---- frames

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """Yield the frames that the interface receives, without end.

        Raises: Permanent if the interface cannot be captured.
        """
        left = None if self._descriptors is None else adopt(self._interface, self._descriptors, self.name)
        ring = left or self._opened()
        ring.begin(self._first_position)
        self._ring = ring
        self._link = link = Link(ring, self._lost)
        self._looked_ns = time.time_ns()
        try:
            while True:
                link.look()
                block = ring.read(self.buses)
                self._report_drops(ring)
                if block is not None:
                    yield block
                await asyncio.sleep(self._drain_s)
        finally:
            self._close(ring)

    def _opened(self) -> PacketRing:
        """Open a new ring, and keep its descriptor for a successor.  Raises: Permanent."""
        where = f"source {self.name}"
        try:
            ring = PacketRing.open(self._interface, self._ring_bytes, self._new_ring_id)
        except PermissionError as error:
            raise Permanent(f"{where}: packet rings cannot be used: {unavailable() or error.strerror}") from error
        except OSError as error:
            raise Permanent(
                f"{where}: cannot open a packet ring of {self._ring_bytes:,} bytes ({error.strerror}); lower ring_mb"
            ) from error
        if self._descriptors is not None:
            self._descriptors.keep(ring.name, ring.fileno())
        return ring

    def _report_drops(self, ring: PacketRing) -> None:
        """Report the frames that the kernel has dropped since the last call."""
        since_ns, self._looked_ns = self._looked_ns, time.time_ns()
        if drops := ring.drops():
            self._lost(drops, since_ns, self._looked_ns, "ring full")

    def _close(self, ring: PacketRing) -> None:
        # A release in another thread writes into the mapping, so the mapping may be closed only after the release.
        with self._releasing:
            self._ring = None
            try:
                self._report_drops(ring)
                # One read takes what has arrived up to now, so a busy bus cannot prolong it.  The frames stay held in
                # the ring, and a successor that adopts the ring skips those that have been stored.
                self.rest = ring.read(self.buses)
            finally:
                ring.close()

    def _lost(self, count: int, first_ns: int, last_ns: int, detail: str) -> None:
        self._on_loss(BusLoss(self.name, count, first_ns, last_ns, detail))
