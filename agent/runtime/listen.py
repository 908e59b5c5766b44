"""The first thing a start does: packet rings listen on their buses before the rest of the agent is even imported.

Frames then wait in the rings; the sources adopt them (`agent.sources.kept_rings`) as they do those of a predecessor.
"""

from agent.settings.settings import PacketRingSource, Settings
from agent.sources import kept_rings
from agent.system.descriptors import Descriptors


def listen(settings: Settings, descriptors: Descriptors) -> None:
    """Open the rings that `settings` name and nobody has left in `descriptors`, as far as they can be had."""
    for source in settings.sources:
        if isinstance(source, PacketRingSource):
            kept_rings.listen(source.interface, source.ring_bytes, descriptors)
