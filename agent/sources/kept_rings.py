"""Keep packet rings beyond the life of their reader, and find them again by the names of their descriptors.

The frames of a ring stay in kernel memory for as long as a process holds the ring's descriptor.
`agent.system.descriptors` holds a duplicate of the descriptor for the next configuration, and lets the service manager
hold one for the next process.  If a reader is killed, its successor adopts the ring, and no frame is lost.

No ring outlives a power cut.  After a power cut, a kept ring may still be found that does not have the frames of the
earlier reader: the agent opens new rings at its very start, and may be killed before it reads them.  Each ring
therefore has an id, which the spool stores with the run of the agent that reads the ring.
"""

import contextlib
import re
import secrets
from collections.abc import Collection
from typing import Final

import structlog

from agent.errors import Permanent
from agent.sources import ring_layout
from agent.sources.interfaces import interface_up, is_can
from agent.sources.ring_socket import PacketRing
from agent.system.descriptors import Descriptors

_NAME: Final = re.compile(r"ring-(?P<slot_bytes>\d+)x(?P<slots>\d+)-(?P<id>[0-9a-f]{16})-(?P<interface>.+)")
_log = structlog.get_logger()


def _rings_of(interface: str, descriptors: Descriptors) -> dict[str, re.Match[str]]:
    """Return the kept rings of `interface`: the name of each ring's descriptor, with the match of `_NAME` in it."""
    matches = {name: match for name in descriptors.names() if (match := _NAME.fullmatch(name)) is not None}
    return {name: match for name, match in matches.items() if match["interface"] == interface}


def new_ring_id() -> str:
    """Return a random id for a new ring."""
    return secrets.token_hex(8)


def kept_ring_id(interface: str, descriptors: Descriptors) -> str | None:
    """Return the id of the ring that `adopt` will return for `interface`, or None if no kept ring can be used.

    Kept rings that cannot be used are closed.
    """
    ring = _usable(interface, descriptors)
    if ring is None:
        return None
    ring.close()
    return ring.ring_id


def drop_unused(descriptors: Descriptors, interfaces: Collection[str]) -> None:
    """Close the kept rings of interfaces that are not in `interfaces`, because no source would empty them."""
    for name in descriptors.names():
        match = _NAME.fullmatch(name)
        if match is not None and match["interface"] not in interfaces:
            descriptors.drop(name)


def prepare(interface: str, ring_bytes: int, descriptors: Descriptors) -> PacketRing | None:
    """Return a new ring for `interface`, which receives nothing before `listen`.

    The result is None if a ring of this interface is kept already, or if no ring can be opened now.  The source of the
    interface then opens a ring itself later, and reports any problem.
    """
    with contextlib.suppress(OSError):
        if kept_ring_id(interface, descriptors) is None and interface_up(interface) and is_can(interface):
            return PacketRing.open(interface, ring_bytes, new_ring_id())
    return None


def listen(ring: PacketRing, descriptors: Descriptors) -> None:
    """Let `ring`, a result of `prepare`, receive frames, and keep it.  The source of its interface adopts it later.

    If the interface has gone away meanwhile, the ring is closed.
    """
    try:
        with contextlib.suppress(OSError, Permanent):
            ring.bind()
            descriptors.keep(ring.name, ring.fileno())
    finally:
        ring.close()


def adopt(interface: str, descriptors: Descriptors, bus: str) -> PacketRing | None:
    """Return the ring that an earlier reader left for `interface`, or None if no kept ring can be used.

    Kept rings that cannot be used are closed.
    """
    ring = _usable(interface, descriptors)
    if ring is not None:
        _log.info("ring_adopted", bus=bus, held=ring.held, slots=ring.slots)
    return ring


def _usable(interface: str, descriptors: Descriptors) -> PacketRing | None:
    for name, match in _rings_of(interface, descriptors).items():
        reason = "another version of this program made the ring"
        # A ring of another slot size has another layout, which only the version that made it can read.
        if int(match["slot_bytes"]) == ring_layout.SLOT_BYTES and (descriptor := descriptors.take(name)) is not None:
            try:
                return PacketRing.adopt(descriptor, int(match["slots"]), interface, match["id"])
            except (OSError, ValueError) as error:
                reason = str(error)
        _log.warning("ring_not_adopted", interface=interface, descriptor=name, reason=reason)
        descriptors.drop(name)
    return None
