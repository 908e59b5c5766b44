"""The window: batches that are sent and not answered for.  Pure.

Invariants: at most `in_flight` batches wait for their answer; of them at most `receive_maximum`, and
`unconfirmed_bytes` or one single batch, for the broker's PUBACK, so that what is fresh never has more than that before
it on a slow link, and memory holds no more of them.  What goes beside fresh data (`beside`) takes neither the last
place nor the last eighth of the bytes.

The window opens at START batches and grows by one with each answer: a receiver that is away costs few batches of each
connection, and one that answers is kept busy.
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.spool_batch import Entry
from agent.telemetry.unanswered import Key

START: Final = 8


class Turn(Enum):
    """The kinds of batches that take turns, in their order; the numbers of those that are lanes are theirs."""

    EVENTS = Lane.EVENTS.value
    LIVE = Lane.LIVE.value
    AGAIN = 0
    BACKLOG = Lane.BACKLOG.value

    @property
    def beside(self) -> bool:
        """Whether it goes beside fresh data, and never in its way."""
        return self in _BESIDE


_BESIDE: Final = frozenset({Turn.AGAIN, Turn.BACKLOG})


@dataclass(slots=True)
class Flight:
    """A batch that is sent.  `lane`: in which it travels, which is not the one that it was sealed for."""

    entry: Entry
    lane: Lane
    turn: Turn
    sent_at_s: float
    overdue_at_s: float = math.inf

    @property
    def confirmed(self) -> bool:
        """Whether the broker has it."""
        return self.overdue_at_s < math.inf


class Flights:
    """All of them on one connection."""

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
        """Their names."""
        return self._flights.keys()

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flights.values()))

    def get(self, key: Key) -> Flight | None:
        """The flight of a batch."""
        return self._flights.get(key)

    def room(self) -> int:
        """How many more batches there is room for."""
        return max(0, min(self._size - len(self._flights), self._receive_maximum - self._unconfirmed))

    @property
    def is_hungry(self) -> bool:
        """Whether less than half of what may wait for the broker does."""
        return (
            2 * self._unconfirmed <= min(self._size, self._receive_maximum)
            and 2 * self._unconfirmed_bytes <= self._unconfirmed_limit
        )

    def takes(self, turn: Turn, size_bytes: int = 0) -> bool:
        """Whether a batch of that kind and size fits in."""
        if not self.room() or (turn.beside and self._beside >= max(1, self._size - 1)):
            return False
        limit = self._unconfirmed_limit
        usable = limit - limit // 8 if turn.beside else limit
        return not self._unconfirmed or self._unconfirmed_bytes + size_bytes <= usable

    def add(self, flight: Flight) -> None:
        """It is sent."""
        self.remove(flight.entry.key)
        self._flights[flight.entry.key] = flight
        self._beside += flight.turn.beside
        self._unconfirmed += 1
        self._unconfirmed_bytes += flight.entry.size_bytes

    def confirm(self, key: Key, now_s: float, overdue_at_s: float) -> None:
        """The broker has it; its answer is due."""
        flight = self._flights.get(key)
        if flight is None:
            return
        if not flight.confirmed:
            self._unconfirmed -= 1
            self._unconfirmed_bytes -= flight.entry.size_bytes
        flight.sent_at_s, flight.overdue_at_s = now_s, overdue_at_s

    def remove(self, key: Key) -> Flight | None:
        """It gives its place up."""
        flight = self._flights.pop(key, None)
        if flight is not None:
            self._beside -= flight.turn.beside
            if not flight.confirmed:
                self._unconfirmed -= 1
                self._unconfirmed_bytes -= flight.entry.size_bytes
        return flight

    def grow(self) -> None:
        """A batch was answered for."""
        self._size = min(self._in_flight, self._size + 1)
