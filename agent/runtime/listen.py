"""The first thing that a start does: packet rings listen on their buses before the rest of the agent is imported.

The frames of that time wait in the rings.  The sources adopt these rings as they adopt those of a predecessor.
"""

from agent.settings.sections import PacketRingSettings, Settings
from agent.sources import kept_rings
from agent.system.descriptors import Descriptors


def listen(settings: Settings, descriptors: Descriptors) -> None:
    """Open each ring that `settings` ask for and that no predecessor has left in `descriptors`.

    A ring that cannot be opened now is left out, and its source tries again later.
    """
    for source in settings.sources:
        if isinstance(source, PacketRingSettings):
            kept_rings.listen(source.interface, source.ring_bytes, descriptors)
