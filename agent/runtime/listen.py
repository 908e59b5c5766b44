"""The first thing a start does: packet rings listen on their buses before the rest of the agent is even imported.

Frames then wait in the rings; the sources adopt them (`agent.sources.packet_ring`) as they do those of a predecessor.
"""

from agent.settings.settings import PacketRingSource, Settings
from agent.sources import packet_ring
from agent.system.descriptors import Descriptors


def listen(settings: Settings, descriptors: Descriptors) -> None:
    """Open the rings that `settings` name and nobody has left in `descriptors`, as far as they can be had."""
    for source in settings.sources:
        if isinstance(source, PacketRingSource):
            packet_ring.listen(source.interface, source.ring_bytes, descriptors)
