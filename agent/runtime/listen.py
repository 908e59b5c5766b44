"""Open the packet rings at the very start, before the rest of the agent is imported.

Frames that arrive during the start wait in the rings.  The sources adopt these rings later, in the same way as the
rings of an earlier process.
"""

from agent.settings.sections import PacketRingSettings, Settings
from agent.sources import kept_rings
from agent.system.descriptors import Descriptors


def listen(settings: Settings, descriptors: Descriptors) -> None:
    """Open each ring that `settings` ask for, unless an earlier process has left that ring in `descriptors`.

    A ring that cannot be opened now is skipped, and its source tries again later.
    """
    for source in settings.sources:
        if isinstance(source, PacketRingSettings):
            kept_rings.listen(source.interface, source.ring_bytes, descriptors)
