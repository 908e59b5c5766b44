"""A CAN interface through a packet ring of the kernel's (AF_PACKET, PACKET_RX_RING).  Touches the world.

The kernel writes each frame into memory that it shares with us; a timer drains what has come, as arrays.  No system
call and no Python a frame.  A slot goes back to the kernel only when told that its frame is durable (`release`), and
the ring outlives the process where the service manager keeps its descriptor (`Descriptors`): a successor maps it again,
reads what is held once more, and goes on with the first frame that nobody has read.

The socket takes every protocol of the interface, filtered to CAN and CAN FD, so that one ring holds both in the order
of the bus; what this machine sends is seen once, where it comes back from the bus (PACKET_IGNORE_OUTGOING).

Loss happens at one point, a ring without a free slot; the kernel counts (PACKET_STATISTICS), and it becomes a BusLoss.
An interface that goes away and comes back is one too, of unknown count.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, Protocol

import numpy as np
import structlog

from agent.errors import Permanent
from agent.sources import BusLoss, ring_layout
from can_dbc.frames import FrameBlock

_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V2: Final = 1
_SO_ATTACH_FILTER: Final = 26
_ETH_P_ALL: Final = 3
_ARPHRD_CAN: Final = 280
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 1
_NAME: Final = re.compile(r"ring-(\d+)x(\d+)-(.+)")

RETRY_S: Final = 0.5  # how soon an interface that appears is taken up
PRESSED: Final = 0.5  # share of the slots held at which frames are made durable ahead of time; the rest is for stalls
_log = structlog.get_logger()


class Descriptors(Protocol):
    """Where descriptors outlive their user: this process's next configuration, or the next process."""

    def names(self) -> tuple[str, ...]:
        """What is kept."""

    def take(self, name: str) -> int | None:
        """A duplicate of the descriptor of that name, for the caller to close."""

    def keep(self, name: str, descriptor: int) -> None:
        """Keep a duplicate under that name."""

    def drop(self, name: str) -> None:
        """Keep it no longer."""


def unavailable() -> str | None:
    """Why this process cannot use packet rings here; None where it can."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
            probe.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            probe.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    except PermissionError:
        return "no CAP_NET_RAW; the service unit grants it, or run as root"
    except OSError as error:
        kernel = os.uname().release
        return f"kernel {kernel} has no packet sockets as of Linux 4.20 ({error.strerror}): CONFIG_PACKET"
    return None


def interface_up(interface: str) -> bool | None:
    """Whether the interface is up; None where there is none of that name."""
    flags = _asked(interface, _SIOCGIFFLAGS)
    return None if flags is None else bool(flags & _IFF_UP)


def is_can(interface: str) -> bool | None:
    """Whether it is a CAN interface; None where there is none of that name."""
    kind = _asked(interface, _SIOCGIFHWADDR)
    return None if kind is None else kind == _ARPHRD_CAN


def _asked(interface: str, request: int) -> int | None:
    """The number that the kernel answers netdevice(7) with; None where there is no such interface."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, request, struct.pack("16s24x", interface.encode()))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
    return int(struct.unpack_from("H", answer, 16)[0])


def drop_unused(descriptors: Descriptors, interfaces: Collection[str]) -> None:
    """Keep no ring of an interface that is not among `interfaces`: nobody would empty it."""
    for name in descriptors.names():
        match = _NAME.fullmatch(name)
        if match is not None and match[3] not in interfaces:
            descriptors.drop(name)


def listen(interface: str, ring_bytes: int, descriptors: Descriptors) -> None:
    """Open the ring of `interface` now, for its source to adopt later, as from a predecessor; unless one is kept.

    What cannot be had at this moment is left to the source, which says why and waits.
    """
    if any(match[3] == interface for match in map(_NAME.fullmatch, descriptors.names()) if match):
        return
    with contextlib.suppress(OSError, Permanent):
        if not interface_up(interface):
            return
        ring = PacketRing.open(interface, ring_bytes)
        try:
            ring.bind()
            descriptors.keep(ring.name, ring.fileno())
        finally:
            ring.close()


class PacketRing:
    """The socket and its memory.  `unread` to `read`, `release` in the order of the positions; `close` ends all."""

    def __init__(self, sock: socket.socket, ring_bytes: int, interface: str) -> None:
        """Map the ring of `sock`, which has `ring_bytes`.  Raises OSError where it has not; `sock` is ours then too."""
        self._socket = sock
        self.interface = interface
        try:
            self._map = mmap.mmap(sock.fileno(), ring_bytes)
        except (OSError, ValueError):
            sock.close()
            raise
        self._slots = np.frombuffer(self._map, ring_layout.SLOT)
        self.held_from, self.position = ring_layout.recover(self._slots)

    @classmethod
    def open(cls, interface: str, ring_bytes: int) -> "PacketRing":
        """A new ring; it fills from `bind` on.  Raises OSError, also where memory does not suffice."""
        *request, slots = ring_layout.geometry(ring_bytes, mmap.PAGESIZE)
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            _attach_filter(sock)
            sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("4I", *request, slots))
        except OSError:
            sock.close()
            raise
        return cls(sock, slots * ring_layout.SLOT_BYTES, interface)

    @classmethod
    def adopt(cls, descriptor: int, slots: int, interface: str) -> "PacketRing":
        """A ring that another reader left.  Raises OSError where it is none of `slots`; closes `descriptor` then."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return cls(sock, slots * ring_layout.SLOT_BYTES, interface)

    @property
    def name(self) -> str:
        """What a successor must know, for `Descriptors`."""
        return f"ring-{ring_layout.SLOT_BYTES}x{len(self._slots)}-{self.interface}"

    @property
    def slots(self) -> int:
        """How many frames it holds."""
        return len(self._slots)

    @property
    def held(self) -> int:
        """Frames read and not released."""
        return self.position - self.held_from

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def begin(self, used: int) -> None:
        """Before reading: what a predecessor held is read again; positions below `used` are taken.

        A predecessor on the same bus has used none that its ring did not count; where it has, they are another ring's.
        """
        foreign = ring_layout.counted(self._slots) < used  # not `position`: who went back may have read nothing yet
        ring_layout.rewind(self._slots, self.held_from)
        self.position = self.held_from
        if foreign:
            self.held_from = self.position = ring_layout.number(self._slots, used)

    def bound(self) -> bool:
        """Whether it listens on the interface that has the name now."""
        return str(self._socket.getsockname()[0]) == self.interface

    def bind(self) -> None:
        """Listen on the interface.  Raises OSError; Permanent where it is no CAN interface."""
        self._socket.bind((self.interface, _ETH_P_ALL))
        if self._socket.getsockname()[3] != _ARPHRD_CAN:
            raise Permanent(f"source {self.interface}: interface {self.interface} is no CAN interface; name another")

    def read(self, buses: tuple[str]) -> FrameBlock | None:
        """All that has come since the last call; None where nothing has."""
        count = ring_layout.unread(self._slots, self.position, self.held)
        if not count:
            return None
        block = ring_layout.read(self._slots, self.position, count, buses)
        self.position += count
        return block

    def release(self, position: int) -> None:
        """Give back the slots of all frames before `position` that were read."""
        position = min(position, self.position)
        if position > self.held_from:
            ring_layout.release(self._slots, self.held_from, position)
            self.held_from = position

    def drops(self) -> int:
        """Frames that found no free slot since the last call, by whichever reader."""
        return int(struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])

    def went_away(self) -> bool:
        """Whether the interface went down or away since the last call."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def close(self) -> None:
        """Let go of memory and socket."""
        del self._slots
        self._map.close()
        self._socket.close()


class PacketRingSource:
    """One interface.  Several interfaces are several sources."""

    def __init__(
        self,
        *,
        bus: str,
        interface: str,
        drain_ms: int = 100,
        ring_bytes: int = 8_000_000,
        on_loss: Callable[[BusLoss], None],
        descriptors: Descriptors | None = None,
    ) -> None:
        """`on_loss` is called in the event loop, at most once a drain interval and kind of loss.

        Frames are held from reading until `release`; whoever needs no such thing releases what it gets at once.
        """
        self.name = self.position_name = bus
        self.buses = (bus,)
        self._interface = interface
        self._drain_s = drain_ms / 1_000
        self._ring_bytes = ring_bytes
        self._on_loss = on_loss
        self._descriptors = descriptors
        self._first_position = 0
        self._looked_ns = 0
        self._ring: PacketRing | None = None
        self._releasing = threading.Lock()

    # ---- for whoever makes frames durable

    @property
    def resumes(self) -> bool:
        """Whether a predecessor left its ring for this interface: not after a power cut."""
        return bool(self._left())

    def begin(self, *, used: int, needed: int) -> None:
        """Positions below `used` were given to frames of earlier rings: before `blocks`, where there were any."""
        self._first_position = used

    def release(self, position: int) -> None:
        """Every frame before `position` is durable, or nobody wants it.  Any thread may call it."""
        with self._releasing:
            if self._ring is not None:
                self._ring.release(position)

    @property
    def pressed(self) -> bool:
        """Whether the ring is so full of held frames that they should be made durable now."""
        ring = self._ring
        return ring is not None and ring.held > PRESSED * ring.slots

    # ---- frames

    async def blocks(self) -> AsyncIterator[FrameBlock]:
        """What the interface receives, without end.  Raises Permanent where it cannot be captured from."""
        ring = self._adopted() or self._opened()
        ring.begin(self._first_position)
        self._ring = ring
        link = _Link(ring, self._lost)
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

    def _adopted(self) -> PacketRing | None:
        """The ring that a predecessor left for this interface."""
        for name, match in self._left().items():
            assert self._descriptors is not None
            descriptor = self._descriptors.take(name) if int(match[1]) == ring_layout.SLOT_BYTES else None
            try:
                if descriptor is not None:
                    ring = PacketRing.adopt(descriptor, int(match[2]), self._interface)
                    _log.info("ring_adopted", bus=self.name, held=ring.held, slots=ring.slots)
                    return ring
                reason = "made by another version of this program"
            except (OSError, ValueError) as error:
                reason = str(error)
            _log.warning("ring_not_adopted", bus=self.name, descriptor=name, reason=reason)
            self._descriptors.drop(name)
        return None

    def _left(self) -> dict[str, re.Match[str]]:
        """Descriptors of this interface that outlived their ring's user."""
        names = () if self._descriptors is None else self._descriptors.names()
        matches = {name: match for name in names if (match := _NAME.fullmatch(name)) is not None}
        return {name: match for name, match in matches.items() if match[3] == self._interface}

    def _opened(self) -> PacketRing:
        where = f"source {self.name}"
        try:
            ring = PacketRing.open(self._interface, self._ring_bytes)
        except PermissionError as error:
            raise Permanent(f"{where}: {unavailable() or error.strerror}") from error
        except OSError as error:
            raise Permanent(
                f"{where}: no packet ring of {self._ring_bytes:,} bytes ({error.strerror}); lower ring_mb"
            ) from error
        if self._descriptors is not None:
            self._descriptors.keep(ring.name, ring.fileno())
        return ring

    def _report_drops(self, ring: PacketRing) -> None:
        """What the kernel has dropped since the last look."""
        since_ns, self._looked_ns = self._looked_ns, time.time_ns()
        if drops := ring.drops():
            self._lost(drops, since_ns, self._looked_ns, "ring full")

    def _close(self, ring: PacketRing) -> None:
        with self._releasing:
            self._ring = None
            try:
                self._report_drops(ring)
                rest = ring.read(self.buses) if self._descriptors is None else None
                if rest is not None:  # came after the last drain, and nobody will fetch it
                    self._lost(len(rest), int(rest.t_ns.min()), int(rest.t_ns.max()), "source closed")
            finally:
                ring.close()

    def _lost(self, count: int, first_ns: int, last_ns: int, detail: str) -> None:
        self._on_loss(BusLoss(self.name, count, first_ns, last_ns, detail))


class _Link:
    """Follows an interface that comes and goes: binds the ring to it, and says once what it waits for."""

    def __init__(self, ring: PacketRing, lost: Callable[[int, int, int, str], None]) -> None:
        self._ring = ring
        self._lost = lost
        self._waiting = True
        self._away_since_ns: int | None = None  # None before the first time: nobody missed anything
        self._told: str | None = None
        self._next_try_s = 0.0

    def look(self) -> None:
        """At every drain.  Raises Permanent where the interface is of another kind."""
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
        elif reason != self._told:
            _log.warning("bus_waiting", bus=self._ring.interface, reason=reason)
            self._told = reason

    def _reason(self) -> str | None:
        """Why nothing can come from the interface; None where the ring listens on it."""
        interface = self._ring.interface
        self._ring.went_away()  # what was is over
        up = interface_up(interface)
        if up is None:
            return f"there is no interface {interface}"
        if not up:
            return f"interface {interface} is down; bring it up: ip link set {interface} up"
        if not self._ring.bound():
            try:
                self._ring.bind()
            except OSError as error:  # gone again, this very moment
                return f"interface {interface} cannot be used: {error.strerror}"
        return None

    def _came_back(self) -> None:
        _log.info("bus_open", bus=self._ring.interface)
        self._waiting = False
        self._told = None
        if self._away_since_ns is not None:
            self._lost(0, self._away_since_ns, time.time_ns(), "interface away")
            self._away_since_ns = None


def _attach_filter(sock: socket.socket) -> None:
    program = ring_layout.frame_filter()
    memory = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    )
