"""Keeps the acknowledgements that the disk did not let the spool record, until the disk works again.

This file is pure.

The batches of such an acknowledgement are still in the spool, but they have been answered, so they are not sent again.
If the process ends first, they are sent again after the next start, and the receiver recognizes them.

Invariant: only an acknowledgement that names the digest of a batch that was sent keeps this batch from being sent.
"""

from collections.abc import Iterable, Set
from typing import Final

from agent.formats.up.acks import Ack
from agent.telemetry.uplink.unanswered import Key

LATE: Final = 1_000
"""At most this many acknowledgements are kept, of some hundred bytes each.  Batches of further ones are sent again."""
RETRY_S: Final = 2.0  # as often as the outbox tries the disk again


class LateAnswers:
    """Keeps acknowledgements that are not recorded yet, across connections."""

    def __init__(self) -> None:
        self._late: list[tuple[Ack, frozenset[Key]]] = []

    def __len__(self) -> int:
        return len(self._late)

    @property
    def keys(self) -> Set[Key]:
        """The ids of the batches that are answered and still in the spool."""
        return frozenset().union(*(keys for _, keys in self._late))

    def keep(self, ack: Ack, keys: Iterable[Key]) -> None:
        """Keep `ack`, which answers the sent batches `keys`.  An acknowledgement that answers none is not kept."""
        answered = frozenset(keys)
        if answered and len(self._late) < LATE:
            self._late.append((ack, answered))

    @property
    def oldest(self) -> Ack:
        """Return the oldest acknowledgement that waits."""
        return self._late[0][0]

    def drop_oldest(self) -> None:
        """Forget the oldest acknowledgement, because the spool has recorded it."""
        del self._late[0]
