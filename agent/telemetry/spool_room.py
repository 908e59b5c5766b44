"""Room for new batches in the spool: what must go for them, by what index and disk say.  Touches the world.

agent.telemetry.retention decides; it is asked only where something is over age, or the spool near a limit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry import retention
from agent.telemetry.losses import Reason
from agent.telemetry.retention import Limits
from agent.telemetry.spool_batch import Entry
from agent.telemetry.spool_files import SpoolFolder
from agent.telemetry.spool_index import Index

AGED_AT_ONCE: Final = 64  # batches over age that one append evicts: bounds its time, many more than it adds
CLOCK_SET_S: Final = 1_735_689_600.0  # 2025-01-01: what an earlier clock stored has no age, for nobody had set it
_ARRIVING: Final = 2**62


def make_room(
    index: Index,
    folder: SpoolFolder,
    limits: Limits,
    now_s: float,
    *,
    arriving: Sequence[Entry],
    replaced: Sequence[Entry],
) -> list[tuple[Entry, Reason]]:
    """What the limits demand to evict, of the stored batches and of `arriving`, and why.

    What is `replaced` counts no more, though its bytes still take their space.  Files of acknowledged batches are
    removed first.  Raises OSError and sqlite3.Error.
    """
    since_s = CLOCK_SET_S if now_s >= CLOCK_SET_S else 0.0
    aged = index.stored_between(since_s, now_s - limits.max_age_s, AGED_AT_ONCE)
    stored_bytes = index.stored_bytes()
    arriving_bytes = sum(entry.size_bytes for entry in arriving)
    taken_bytes = stored_bytes + folder.doomed[1] + arriving_bytes
    free_bytes = folder.free_bytes()
    tight = free_bytes < limits.reserve_bytes + arriving_bytes or taken_bytes > limits.quota_bytes
    if tight:
        folder.sweep()
        free_bytes = folder.free_bytes()
    elif not aged:
        return []
    leaving = {entry.position for entry in replaced}
    evictions = retention.evictions(
        limits,
        stored_bytes=stored_bytes - sum(entry.size_bytes for entry in replaced),
        events_bytes=index.usage()[Lane.EVENTS][1],
        free_bytes=free_bytes,
        incoming=[
            replace(entry.as_held(), position=_ARRIVING + number)  # newer than anything stored
            for number, entry in enumerate(arriving)
        ],
        expired=[entry.as_held() for entry in aged if entry.position not in leaving],
        data=retention.merge_by_sacrifice(
            (entry.as_held() for entry in entries if entry.position not in leaving)
            for entries in (
                index.next_to_evict(Lane.LIVE),
                index.next_to_evict(Lane.BACKLOG),
                index.provisional_to_evict(),
            )
        ),
        events=(entry.as_held() for entry in index.next_to_evict(Lane.EVENTS)),
    )
    found: list[tuple[Entry, Reason]] = []
    for eviction in evictions:
        number = eviction.batch.position - _ARRIVING
        entry = arriving[number] if number >= 0 else index.at(eviction.batch.position)
        if entry is not None:
            found.append((entry, eviction.reason))
    return found
