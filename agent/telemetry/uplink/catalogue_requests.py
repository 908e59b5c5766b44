"""Keeps the catalogues that the receiver asked for, and the batches that wait for them.  This file is pure.

Times are monotonic seconds.  A catalogue is sent first, and the batches that wait for it follow at once.  The same
catalogue is sent again only after growing intervals, however often the receiver asks.  At most MAX_WANTED catalogues
are remembered.
"""

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Final

from agent.telemetry.uplink.unanswered import Key

MAX_WANTED: Final = 64


@dataclass(slots=True)
class _Request:
    keys: frozenset[Key]  # of the batches that wait for the catalogue
    is_open: bool = True  # whether the catalogue is still to be sent
    supplied_at_s: float = -math.inf
    next_s: float = -math.inf
    times: int = 0


class CatalogueRequests:
    """Holds all requests on one connection.

    `patience_s` takes the number of times that a catalogue was sent again so far.  It returns how many seconds to wait
    before the catalogue may be sent once more.
    """

    def __init__(self, patience_s: Callable[[int], float]) -> None:
        self._patience_s = patience_s
        self._requests: dict[bytes, _Request] = {}

    def add(self, digest: bytes, keys: Set[Key]) -> bool:
        """Note that the batches `keys` wait for the catalogue `digest`.

        Return False, and note nothing, if MAX_WANTED other catalogues are requested already.
        """
        if digest not in self._requests and len(self._requests) >= MAX_WANTED:
            return False
        request = self._requests.setdefault(digest, _Request(frozenset(keys)))
        request.keys |= keys
        return True

    def supplied_at_s(self, digest: bytes) -> float:
        """Return when the broker last accepted the catalogue, or minus infinity if it never has."""
        return self._requests[digest].supplied_at_s

    def ask(self, digest: bytes) -> None:
        """Note that the catalogue is to be sent, or sent again."""
        self._requests[digest].is_open = True

    def take_due(self, now_s: float) -> list[bytes]:
        """Return the digests of the catalogues to send now, and count them as sent.  The caller must send them."""
        due = [digest for digest, request in self._requests.items() if request.is_open and request.next_s <= now_s]
        for digest in due:
            request = self._requests[digest]
            request.is_open = False
            request.next_s = now_s + self._patience_s(request.times)
            request.times += 1
        return due

    def due_s(self) -> list[float]:
        """Return, for each catalogue that is still to be sent, the time from which it may be sent."""
        return [request.next_s for request in self._requests.values() if request.is_open]

    def supplied(self, digest: bytes, now_s: float) -> Set[Key]:
        """Note that the broker accepted the catalogue, and return the batches that wait for it."""
        request = self._requests.get(digest)
        if request is None:
            return frozenset()
        request.supplied_at_s = now_s
        return request.keys

    def waiting_for(self, digest: bytes) -> list[Key]:
        """Return the batches that wait for a catalogue."""
        request = self._requests.get(digest)
        return [] if request is None else sorted(request.keys)

    def forget(self, key: Key) -> None:
        """Drop each request for which a batch waits, because the batch left the spool.

        The request is dropped even if other batches wait for the same catalogue.  If the receiver stored the batch that
        left, the receiver has the catalogue.  Otherwise, the receiver asks again when it gets another of these batches.
        """
        for digest, request in list(self._requests.items()):
            if key in request.keys:
                del self._requests[digest]
