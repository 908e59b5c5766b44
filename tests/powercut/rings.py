"""The real packet rings over simulated memory."""

import mmap
import os
from typing import Any, cast

import numpy as np

from agent.sources import ring_layout
from agent.sources.ring_socket import PacketRing
from can_dbc.frames import FrameBlock
from tests.agent.sources.test_ring_layout import Kernel

SLOTS = 96


class Memory:
    """The memory of one ring.  It has the methods of a socket that a ring needs."""

    def __init__(self, ring_id: str) -> None:
        self.ring_id = ring_id
        self._fd = os.memfd_create("ring")
        os.truncate(self._fd, SLOTS * ring_layout.SLOT_BYTES)
        self.kernel = Kernel(SLOTS)
        self.kernel.memory = np.frombuffer(mmap.mmap(self._fd, SLOTS * ring_layout.SLOT_BYTES), np.uint8)
        self.kernel.slots = self.kernel.memory.view(ring_layout.SLOT)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Do nothing: the service manager keeps the ring."""

    def cut(self) -> None:
        os.close(self._fd)


class Source:
    """Captures one bus, as `agent.sources.packet_ring` does."""

    pressed = False

    def __init__(self, bus: str, memory: Memory) -> None:
        self.buses, self.position_name = (bus,), bus
        self.held_in = memory.ring_id
        self._ring = PacketRing(cast("Any", memory), SLOTS * ring_layout.SLOT_BYTES, bus, memory.ring_id)

    def begin(self, *, used: int, needed: int) -> None:
        self._ring.begin(used)

    def release(self, number: int) -> None:
        self._ring.release(number)

    def read(self) -> FrameBlock | None:
        return self._ring.read((self.buses[0],))

    def close(self) -> None:
        self._ring.close()
