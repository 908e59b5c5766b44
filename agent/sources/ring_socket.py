"""Open packet rings: sockets whose frames lie in memory that is shared with the kernel (packet_mmap(7), AF_PACKET).

The kernel writes each frame into a slot of the ring.  A reader takes all new frames at once, as arrays, without a
system call or Python code for each frame.  `ring_layout` defines the layout of a slot.
"""

import ctypes
import mmap
import os
import socket
import struct
import threading
from typing import Final

import numpy as np

from agent.errors import Permanent
from agent.sources import ring_layout
from agent.sources.interfaces import ARPHRD_CAN
from can_dbc.frames import FrameBlock

# From <linux/if_packet.h> and <linux/if_ether.h>; Python's socket module lacks them.
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_IGNORE_OUTGOING: Final = 23
# Version 2 has one fixed slot for each frame and nanosecond timestamps.  Version 3 packs frames into blocks, and
# hands over whole blocks only.  Single frames could then not be released, and no successor could take over the ring.
_TPACKET_V2: Final = 1
_SO_ATTACH_FILTER: Final = 26
_ETH_P_ALL: Final = 3

NO_CAPABILITY: Final = (
    "the agent lacks CAP_NET_RAW; start it by its service unit, which grants this capability, or as root"
)
"""What `unavailable` returns if only a capability of this process is missing."""


def unavailable() -> str | None:
    """Return why this process cannot use packet rings on this machine, with a remedy, or None if it can."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
            probe.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            # This is the newest option that a ring needs.  Linux has it from 4.20 on.
            probe.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    except PermissionError:
        return NO_CAPABILITY
    except OSError as error:
        kernel = os.uname().release
        return f"kernel {kernel} is too old or lacks CONFIG_PACKET ({error.strerror}); use Linux 4.20 or later"
    return None


class PacketRing:
    """Owns the socket of a ring and its memory.

    Call `begin` first, then `read` and `release` in the order of the positions, and `close` last.  The ring outlives
    this object if its descriptor is kept elsewhere.
    """

    def __init__(self, sock: socket.socket, ring_bytes: int, interface: str, ring_id: str) -> None:
        """Map the memory of the ring of `sock`, whose size is `ring_bytes`, and take ownership of `sock`.

        `ring_id` tells this ring from every other one.

        Raises: OSError or ValueError if the ring cannot be mapped.  `sock` is closed then.
        """
        self._socket = sock
        self.interface = interface
        self.ring_id = ring_id
        self._order = threading.Lock()
        self._order.acquire()
        try:
            self._map = mmap.mmap(sock.fileno(), ring_bytes)
        except (OSError, ValueError):
            sock.close()
            raise
        self._slots = np.frombuffer(self._map, ring_layout.SLOT)
        self.held_from, self.position = ring_layout.recover(self._slots)

    @classmethod
    def open(cls, interface: str, ring_bytes: int, ring_id: str) -> "PacketRing":
        """Make a ring, which receives frames after `bind`.  Raises: OSError, for example if memory is short."""
        *request, slots = ring_layout.geometry(ring_bytes, mmap.PAGESIZE)
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            # A frame that this machine sends also comes back from the bus (CAN_RAW loopback), but must be seen once.
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            # The filter is attached before the ring is made, so that no slot ever holds anything but a frame.
            _attach_filter(sock)
            sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("4I", *request, slots))
        except OSError:
            sock.close()
            raise
        return cls(sock, slots * ring_layout.SLOT_BYTES, interface, ring_id)

    @classmethod
    def adopt(cls, descriptor: int, slots: int, interface: str, ring_id: str) -> "PacketRing":
        """Take over a ring of `slots` slots that another reader left, and take ownership of its `descriptor`.

        Raises: OSError or ValueError if the ring cannot be used.  `descriptor` is closed then.
        """
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return cls(sock, slots * ring_layout.SLOT_BYTES, interface, ring_id)

    @property
    def name(self) -> str:
        """Return the name under which to keep the ring's descriptor.

        The name has the slot size in bytes, the number of slots, the id of the ring and the interface, for example
        `ring-160x49920-5d0c4f7be1a29638-can0`.
        """
        return f"ring-{ring_layout.SLOT_BYTES}x{len(self._slots)}-{self.ring_id}-{self.interface}"

    @property
    def slots(self) -> int:
        """Return the number of frames that the ring has room for."""
        return len(self._slots)

    @property
    def held(self) -> int:
        """Return the number of frames that have been read and not released."""
        return self.position - self.held_from

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def begin(self, used: int) -> None:
        """Prepare to read.  Frames that an earlier reader of this ring held are read again.

        `used` is the lowest position that no frame of this bus has had yet.  New frames get positions from `used` on.
        """
        # A ring counts every frame that was read from it.  If more positions are used than this ring has counted, then
        # another ring used them (for example before a power cut), and this ring must number its frames past them.
        # `position` would be the wrong count here, because a reader that went back may have read nothing yet.
        foreign = ring_layout.counted(self._slots) < used
        ring_layout.rewind(self._slots, self.held_from)
        self.position = self.held_from
        if foreign:
            self.held_from = self.position = ring_layout.number(self._slots, used)

    def bound(self) -> bool:
        """Return whether the socket still listens on an interface with the name `interface`."""
        return str(self._socket.getsockname()[0]) == self.interface

    def bind(self) -> None:
        """Listen on the interface.  Raises: OSError; Permanent if it is not a CAN interface."""
        # The socket takes all protocols, and the filter keeps CAN and CAN FD.  A socket for each protocol would lose
        # the order of the bus.
        self._socket.bind((self.interface, _ETH_P_ALL))
        if self._socket.getsockname()[3] != ARPHRD_CAN:
            raise Permanent(
                f"source {self.interface}: interface {self.interface} is not a CAN interface; name a CAN interface"
            )

    def read(self, buses: tuple[str]) -> FrameBlock | None:
        """Return all frames that have arrived since the last call, or None if there are none."""
        count = ring_layout.unread(self._slots, self.position, self.held)
        if not count:
            return None
        # A processor such as ARM may read the frames before the status words that announce them.  Whatever was read
        # before a lock is released stays before what is read after the lock is acquired again.
        self._order.release()
        self._order.acquire()
        block = ring_layout.read(self._slots, self.position, count, buses)
        self.position += count
        return block

    def release(self, position: int) -> None:
        """Free the slots of all read frames before `position`, so that the kernel can use them again."""
        position = min(position, self.position)
        if position > self.held_from:
            ring_layout.release(self._slots, self.held_from, position)
            self.held_from = position

    def drops(self) -> int:
        """Return how many frames found no free slot since the last call.  An earlier reader may have made that call."""
        # The kernel resets the counters with each PACKET_STATISTICS (packet(7)), so nothing is counted twice.
        return int(struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])

    def went_away(self) -> bool:
        """Return whether the interface went down or away since the last call."""
        # A packet socket reports this as the pending error ENETDOWN, which reading SO_ERROR clears (packet(7)).
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def close(self) -> None:
        """Unmap the memory and close the socket."""
        # The array points into the mapping, which cannot be unmapped before the array is gone.
        del self._slots
        self._map.close()
        self._socket.close()


def _attach_filter(sock: socket.socket) -> None:
    program = ring_layout.frame_filter()
    # struct sock_fprog: the number of instructions and a pointer to them, which must live until the call returns.
    memory = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    )
