"""Keeps the outstanding batches: those that are sent and that the receiver has not answered.  This file is pure.

An outstanding batch is in flight until its acknowledgement is overdue.  Then it is unanswered, and will be sent again:

    sent --> flights --(overdue, or its catalogue follows)--> unanswered --(sent again)--> both
"""

from collections.abc import Iterable, Set

from agent.formats.up.acks import Sealed
from agent.telemetry.uplink.flights import Flight, Flights
from agent.telemetry.uplink.unanswered import Key, Unanswered


class Outstanding:
    """Moves batches from the in-flight window of one connection to the unanswered batches, which outlive it."""

    def __init__(self, flights: Flights, unanswered: Unanswered) -> None:
        self._flights = flights
        self._unanswered = unanswered

    @property
    def keys(self) -> Set[Key]:
        """The ids of the outstanding batches."""
        return self._flights.keys | self._unanswered.keys

    def named_by(self, epoch: str, sealed: Iterable[Sealed]) -> list[Key]:
        """Return the ids of the outstanding batches that `sealed` names with exactly their digests."""
        named = frozenset(sealed)
        keys = {(epoch, seq) for seq, _ in named}
        sent = [flight.entry for key in keys if (flight := self._flights.get(key)) is not None]
        sent += [entry for key in keys if (entry := self._unanswered.get(key)) is not None]
        return sorted({entry.key for entry in sent if entry.sealed in named})

    def expire(self, now_s: float) -> list[Flight]:
        """Make the batches whose acknowledgement is overdue unanswered, and return what their flights were."""
        overdue = [flight for flight in self._flights if flight.overdue_at_s <= now_s]
        for flight in overdue:
            self._flights.remove(flight.entry.key)
            self._unanswered.note(flight.entry, flight.lane, flight.sent_at_s, now_s)
        return overdue

    def send_again(self, keys: Set[Key], now_s: float) -> None:
        """Make these batches due at once, because the catalogue that they waited for is on its way."""
        for key in sorted(keys):
            flight = self._flights.get(key)
            if flight is not None and flight.confirmed:
                self._flights.remove(key)
                self._unanswered.note(flight.entry, flight.lane, flight.sent_at_s, now_s)
        self._unanswered.hurry(keys, now_s)

    def forget(self, key: Key) -> None:
        """Forget a batch that was answered, left the spool, or cannot be sent now."""
        self._flights.remove(key)
        self._unanswered.forget(key)
