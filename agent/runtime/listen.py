"""Open the packet rings at the very start, before the rest of the agent is imported.

Frames that arrive during the start wait in the rings.  The sources adopt these rings later, in the same way as the
rings of an earlier process.  No run has begun in the spool yet, so a note beside the spool says which buses are
captured (agent.telemetry.spool.listening).
"""

import time
from collections.abc import Iterable, Mapping

import structlog

from agent.settings.sections import PacketRingSettings, SourceSettings
from agent.settings.settings import Loaded
from agent.sources import kept_rings
from agent.system import durable
from agent.system.descriptors import Descriptors
from agent.telemetry.spool.listening import Listening, ListeningNote

log = structlog.get_logger()


def listen(loaded: Loaded, descriptors: Descriptors) -> None:
    """Open each ring that the settings ask for, unless an earlier process has left that ring in `descriptors`.

    A ring that cannot be opened now is skipped, and its source tries again later.
    """
    settings = loaded.settings
    prepared = {
        source.bus: ring
        for source in settings.sources
        if isinstance(source, PacketRingSettings)
        and (ring := kept_rings.prepare(source.interface, source.ring_bytes, descriptors)) is not None
    }
    # A prepared ring receives nothing yet, so the note covers every frame that it will ever receive.
    new = {bus: ring.ring_id for bus, ring in prepared.items()}
    captured = {**captured_buses(settings.sources, descriptors), **new}
    since_us = time.time_ns() // 1_000
    note = ListeningNote(loaded.path(settings.state.folder) / "spool", durable.current())
    try:
        if captured:
            note.add(Listening(bus, held_in, since_us) for bus, held_in in captured.items())
    except OSError as error:
        # The frames matter more than the note.  The disk will refuse the spool as well, which then says what to do.
        log.warning("listening_not_noted", reason=str(error), effect="a power cut now would not be named in the ledger")
    for ring in prepared.values():
        kept_rings.listen(ring, descriptors)


def captured_buses(sources: Iterable[SourceSettings], descriptors: Descriptors) -> Mapping[str, str]:
    """Return the id of the ring in `descriptors` that captures the bus of each of `sources`, by bus."""
    return {
        source.bus: ring_id
        for source in sources
        if isinstance(source, PacketRingSettings)
        and (ring_id := kept_rings.kept_ring_id(source.interface, descriptors)) is not None
    }
