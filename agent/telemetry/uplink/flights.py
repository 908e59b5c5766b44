"""Keeps the in-flight window, which holds the batches that are sent and not answered.  This file is pure.

Invariants: at most `in_flight` batches wait for their acknowledgement.  At most `receive_maximum` of them wait for the
broker's PUBACK.  The batches that wait for a PUBACK have at most `unconfirmed_bytes` together, unless there is only
one.  On a slow link, fresh data thus waits behind few bytes, and memory stays bounded.  Batches that must not delay
fresh data (`Turn.beside`) take neither the last place of the window nor the last eighth of `unconfirmed_bytes`.

The window begins with START places and grows by one place with each answer.  While the receiver is away, each
connection therefore sends few batches in vain.  A receiver that answers is kept busy.
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.turns import Turn
from agent.telemetry.uplink.unanswered import Key

START: Final = 8


@dataclass(slots=True)
class Flight:
    """A batch that is sent and not answered.

    `lane` is the lane in which the batch travels, which may differ from the lane that it was sealed for.
    """

    entry: Entry
    lane: Lane
    turn: Turn
    sent_at_s: float
    overdue_at_s: float = math.inf

    @property
    def confirmed(self) -> bool:
        """Return whether the broker has confirmed the batch."""
        return self.overdue_at_s < math.inf


class Flights:
    """Holds all flights on one connection."""

    def __init__(self, in_flight: int, receive_maximum: int, unconfirmed_bytes: int) -> None:
        self._in_flight = in_flight
        self._receive_maximum = receive_maximum
        self._unconfirmed_limit = unconfirmed_bytes
        self._size = min(START, in_flight)
        self._flights: dict[Key, Flight] = {}
        self._beside = 0
        self._unconfirmed = 0
        self._unconfirmed_bytes = 0

    @property
    def keys(self) -> Set[Key]:
        """The ids of the batches in flight."""
        return self._flights.keys()

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flights.values()))

    def get(self, key: Key) -> Flight | None:
        """Return the flight of a batch, or None."""
        return self._flights.get(key)

    def room(self) -> int:
        """Return how many more batches fit into the in-flight window."""
        return max(0, min(self._size - len(self._flights), self._receive_maximum - self._unconfirmed))

    @property
    def is_hungry(self) -> bool:
        """Return whether the batches that wait for a PUBACK are at most half of the allowed batches and bytes."""
        return (
            2 * self._unconfirmed <= min(self._size, self._receive_maximum)
            and 2 * self._unconfirmed_bytes <= self._unconfirmed_limit
        )

    def takes(self, turn: Turn, size_bytes: int = 0) -> bool:
        """Return whether a batch of this kind and size fits into the window."""
        if not self.room() or (turn.beside and self._beside >= max(1, self._size - 1)):
            return False
        limit = self._unconfirmed_limit
        usable = limit - limit // 8 if turn.beside else limit
        return not self._unconfirmed or self._unconfirmed_bytes + size_bytes <= usable

    def add(self, flight: Flight) -> None:
        """Put a batch that is sent into the window."""
        self.remove(flight.entry.key)
        self._flights[flight.entry.key] = flight
        self._beside += flight.turn.beside
        self._unconfirmed += 1
        self._unconfirmed_bytes += flight.entry.size_bytes

    def confirm(self, key: Key, now_s: float, overdue_at_s: float) -> None:
        """Note that the broker accepted a batch.  The receiver's answer counts as overdue from `overdue_at_s` on."""
        flight = self._flights.get(key)
        if flight is None:
            return
        if not flight.confirmed:
            self._unconfirmed -= 1
            self._unconfirmed_bytes -= flight.entry.size_bytes
        flight.sent_at_s, flight.overdue_at_s = now_s, overdue_at_s

    def remove(self, key: Key) -> Flight | None:
        """Free the place of a batch.  Return its flight, or None if it is not in flight."""
        flight = self._flights.pop(key, None)
        if flight is not None:
            self._beside -= flight.turn.beside
            if not flight.confirmed:
                self._unconfirmed -= 1
                self._unconfirmed_bytes -= flight.entry.size_bytes
        return flight

    def set_in_flight(self, in_flight: int) -> None:
        """Change the greatest size of the window.  Batches beyond a smaller size stay in flight until answered."""
        self._in_flight = in_flight
        self._size = min(self._size, in_flight)

    def grow(self) -> None:
        """Widen the window by one place, up to `in_flight`, because a batch was answered."""
        self._size = min(self._in_flight, self._size + 1)
