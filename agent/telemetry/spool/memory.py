"""Keeps the bytes of batches for which the disk has no room, until they are acknowledged or the disk has room again.

This file is pure.

A batch that is held here has a row in the index like any other batch, so its number is used up, and its loss can be
recorded by name.  Only its bytes are not on the disk.  The row says so: its `size_bytes` is 0, and `withdrawn` names
the limit that left no room.  If the process ends first, recovery records the batch as lost for that reason.

Invariant: memory has at most `limit_bytes` of batches.  Beyond that, `overflow` says which batches must go, by the
rules of agent.telemetry.spool.retention: the least important first, and the oldest of those.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.spool import retention
from agent.telemetry.spool.batch import BatchId, Entry
from agent.telemetry.spool.retention import Limits

_ARRIVING: Final = 2**62


class Memory:
    """Holds batches whose bytes only memory has.  The caller must hold the `turn` of the transactions to change it."""

    def __init__(self, limit_bytes: int) -> None:
        # Memory has no age limit of its own: the row of a held batch ages like that of a stored batch.
        self._limits = Limits.of(limit_bytes, math.inf, 0)
        self._held: dict[BatchId, tuple[Entry, bytes]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def limit_bytes(self) -> int:
        """Return how many bytes of batches may be held."""
        return self._limits.quota_bytes

    @property
    def size_bytes(self) -> int:
        """Return how many bytes of batches are held."""
        return sum(len(content) for _, content in list(self._held.values()))

    def entries(self) -> list[Entry]:
        """Return the held batches with their true sizes, the most valuable first."""
        return sorted(
            (entry for entry, _ in self._held.values()), key=lambda entry: retention.sacrifice(entry.as_held())
        )[::-1]

    def get(self, key: BatchId) -> Entry | None:
        """Return a held batch with its true size, or None."""
        held = self._held.get(key)
        return None if held is None else held[0]

    def content(self, key: BatchId) -> bytes | None:
        """Return the bytes of a held batch, or None."""
        held = self._held.get(key)
        return None if held is None else held[1]

    def hold(self, entry: Entry, content: bytes) -> None:
        """Hold a batch that has the row `entry.row` in the index."""
        self._held[entry.key] = entry, content

    def drop(self, key: BatchId) -> None:
        """Forget a batch.  It need not be held."""
        self._held.pop(key, None)

    def overflow(self, arriving: Sequence[Entry]) -> set[BatchId]:
        """Return which held and which `arriving` batches memory has no room for."""
        held = [entry for entry, _ in self._held.values()]
        newer = [replace(entry, row=_ARRIVING + number) for number, entry in enumerate(arriving)]
        keys = {entry.row: entry.key for entry in (*held, *newer)}
        sizes = [entry.as_held() for entry in held]
        by_value = sorted(sizes, key=retention.sacrifice)
        evictions = retention.evictions(
            self._limits,
            stored_bytes=sum(each.size_bytes for each in sizes),
            events_bytes=sum(each.size_bytes for each in sizes if each.lane is Lane.EVENTS),
            # The file system plays no part here.
            free_bytes=2**62,
            incoming=[entry.as_held() for entry in newer],
            expired=(),
            data=(each for each in by_value if each.lane is not Lane.EVENTS),
            events=(each for each in by_value if each.lane is Lane.EVENTS),
        )
        return {keys[eviction.batch.row] for eviction in evictions}
