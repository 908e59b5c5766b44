"""What the uplink may send next, found in the spool some batches ahead: each look there costs a thread its turn.

Pure.  Invariant: what is answered from memory is at most KEPT_S old.  Whoever stores a batch, or has found one
that was held back, begins with an empty one.  Of what it names some may have left the spool meanwhile: who reads that
finds nothing.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from agent.formats.topics import Lane
from agent.telemetry.spool_batch import Entry
from agent.telemetry.unanswered import Key

AHEAD: Final = 128  # batches of a kind; four times what is sent at once
KEPT_S: Final = 1.0  # bounds for how long one goes unseen that may be sent again, for want of room or after a refusal


class Kind(NamedTuple):
    """Batches sealed for a lane: the fresh ones of it, the others (False), or all (None)."""

    lane: Lane
    fresh: bool | None


KINDS: Final = {
    Lane.EVENTS: (Kind(Lane.EVENTS, None),),
    Lane.LIVE: (Kind(Lane.LIVE, True),),
    Lane.BACKLOG: (Kind(Lane.LIVE, False), Kind(Lane.BACKLOG, None)),
}
"""What travels in each lane, in its order."""


@dataclass(frozen=True, slots=True)
class _Found:
    entries: dict[Key, Entry]
    all: bool  # there are no more of them in the spool
    until_s: float


class Ahead:
    """See the module's text.  Times are monotonic seconds."""

    def __init__(self) -> None:
        self._found: dict[Kind, _Found] = {}

    def put(self, kind: Kind, entries: Sequence[Entry], now_s: float) -> None:
        """The spool was asked for AHEAD batches of that kind, and had these."""
        self._found[kind] = _Found({entry.key: entry for entry in entries}, len(entries) < AHEAD, now_s + KEPT_S)

    def lacks(self, kind: Kind, limit: int, busy: Set[Key], now_s: float) -> bool:
        """Whether the spool must be asked for that kind, to have `limit` that are not `busy`."""
        found = self._found.get(kind)
        if found is None or found.until_s <= now_s:
            return True
        return not found.all and len(self.get(kind, limit, busy)) < limit

    def get(self, kind: Kind, limit: int, busy: Set[Key]) -> list[Entry]:
        """Up to `limit` of that kind, in the order of sending, that are not `busy`."""
        found = self._found.get(kind)
        if found is None:
            return []
        return list(islice((entry for key, entry in found.entries.items() if key not in busy), limit))

    def __iter__(self) -> Iterator[Entry]:
        """Those that are not sent, lane by lane in the order of sending."""
        for kinds in KINDS.values():
            for kind in kinds:
                if (found := self._found.get(kind)) is not None:
                    yield from found.entries.values()

    def sent(self, keys: Iterable[Key]) -> None:
        """These are on their way: whether they may be sent again is for the spool to say."""
        for key in keys:
            for found in self._found.values():
                found.entries.pop(key, None)
