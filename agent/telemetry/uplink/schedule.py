"""Decides what the uplink sends next on one connection.  This file is pure.

Times are monotonic seconds, and randomness is an argument.  `turns` has the policy as a table, and the life of a batch
as a diagram.  `flights` is the window of batches that are sent and not answered, `unanswered` keeps the batches to send
again, and `outstanding` is both together.  `silence` says when to probe, and `pauses` keeps the broker's refusals.

Invariants: the window bounds how many batches wait for an answer.  No batch is sent twice within `ack_timeout_s`,
unless the broker refused or dropped it, or a catalogue that it needs was sent in between.  A receiver that is down, or
a broker that refuses, is tried at growing intervals, so there is no hot loop.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.bucket import TokenBucket
from agent.telemetry.uplink.catalogue_requests import CatalogueRequests
from agent.telemetry.uplink.flights import Flight, Flights
from agent.telemetry.uplink.outstanding import Outstanding
from agent.telemetry.uplink.pauses import Pauses
from agent.telemetry.uplink.silence import Silence
from agent.telemetry.uplink.turns import NEW, POLICY, Turn
from agent.telemetry.uplink.unanswered import Key, Unanswered

AT_ONCE: Final = 32  # batches looked up and read together; the next ones are read while these are on the wire
REFUSAL: Final = Backoff(floor_s=1.0, base_s=2.0, cap_s=300.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits of sending.

    At most `in_flight` batches wait for their acknowledgement.  Of these, at most `receive_maximum` batches and
    `unconfirmed_bytes` wait for the broker's PUBACK.  A PUBACK that takes longer than `publish_timeout_s` ends the
    connection.  `backlog_bytes_s` is how fast the backlog may drain (0: no limit).  `patience_cap_s` bounds the growing
    intervals between probes, and the growing intervals at which a catalogue is sent again.
    """

    in_flight: int
    ack_timeout_s: float
    unconfirmed_bytes: int = 1_000_000
    backlog_bytes_s: float = 0.0
    publish_timeout_s: float = 30.0
    receive_maximum: int = 65_535
    patience_cap_s: float = 300.0
    refusal: Backoff = REFUSAL

    def patience_s(self, times: int) -> float:
        """Return how many seconds to wait for an answer to the next try, after `times` tries without an answer."""
        return min(self.patience_cap_s, self.ack_timeout_s * 2.0 ** min(times, 32))


class Schedule:
    """Holds the state of sending over one connection.  `bucket` and `unanswered` outlive the connection."""

    def __init__(self, pace: Pace, bucket: TokenBucket, unanswered: Unanswered) -> None:
        self._pace = pace
        self._bucket = bucket
        self._unanswered = unanswered
        self.flights = Flights(pace.in_flight, pace.receive_maximum, pace.unconfirmed_bytes)
        self.outstanding = Outstanding(self.flights, unanswered)
        self._silence = Silence(self._patience_s)
        self._answered_s = -math.inf  # when the latest of the answered batches was sent
        self.pauses = Pauses(pace.refusal)
        self.requests = CatalogueRequests(self._patience_s)

    def set_pace(self, pace: Pace) -> None:
        """Use other limits from the next choice on.  Batches in flight stay so."""
        self._pace = pace
        self.flights.set_in_flight(pace.in_flight)

    # ---- what to send

    def room(self) -> int:
        """Return how many batches to look for: as many as still fit into the in-flight window, but at most AT_ONCE."""
        return min(self.flights.room(), AT_ONCE)

    def new_turns(self, allowed: Collection[Lane], now_s: float) -> list[Turn]:
        """Return the kinds of batches to look for in the spool.  `allowed` has the lanes that the link allows."""
        self._expire(now_s)
        limited = not self._bucket.is_open(now_s) or self._unanswered.is_full
        kinds = {turn for turn, rule in NEW if rule.lane in allowed and not (rule.limited and limited)}
        return [turn for turn in self._silence.order() if turn in kinds and self._may(turn, now_s)]

    def busy(self, now_s: float) -> Set[Key]:
        """Return the batches that must not be sent as new ones: in flight, unanswered, or held after a refusal."""
        return self.outstanding.keys | self.pauses.held(now_s)

    def choose(
        self, waiting: Mapping[Turn, Sequence[Entry]], allowed: Collection[Lane], now_s: float
    ) -> list[tuple[Entry, bool]]:
        """Return the batches to send now, each with whether it was sent before.  The caller must send them.

        `waiting` maps each kind to batches of the spool.  These must not be busy, and their topics must not be paused.
        `allowed` has the lanes that the link allows.
        """
        self._expire(now_s)
        chosen: list[tuple[Entry, bool]] = []
        for turn in self._silence.order():
            if not self._may(turn, now_s):
                continue
            for entry, lane in list(self._candidates(turn, waiting, allowed, now_s)):
                if not self._may(turn, now_s, entry.size_bytes):
                    break
                # The rate limits the lane in which a batch travels, because a batch sent again may be backlog, too.
                if lane is Lane.BACKLOG and not self._bucket.is_open(now_s):
                    continue
                self._send(entry, lane, turn, now_s)
                chosen.append((entry, turn is Turn.AGAIN))
        return chosen

    def wake_at_s(self, allowed: Collection[Lane], now_s: float) -> float | None:
        """Return when to call `choose` next, or None if nothing can be sent before an event (an answer, a new batch).

        `now_s` is the time of the last choice.
        """
        times = [*self.pauses.ends_s(), self._unanswered.next_due_s(now_s), self._silence.wake_at_s()]
        if Lane.BACKLOG in allowed:
            times.append(self._bucket.opens_at_s(now_s))
        events_open_s = self.pauses.paused_until_s(Lane.EVENTS, -math.inf)
        times += [max(due_s, events_open_s) for due_s in self.requests.due_s()]
        times += [flight.overdue_at_s for flight in self.flights]
        at_s = min((at_s for at_s in times if at_s > now_s), default=math.inf)
        return None if at_s == math.inf else at_s

    def take_wanted(self, now_s: float) -> list[bytes]:
        """Return the digests of the catalogues to send now.  The caller must send them, in the events lane."""
        return self.requests.take_due(now_s) if Lane.EVENTS in self.pauses.open_lanes(now_s) else []

    # ---- what became of it

    def published(self, entry: Entry, now_s: float) -> None:
        """Note that the broker accepted a batch.  The receiver's acknowledgement is due within `ack_timeout_s`."""
        self.pauses.accepted(entry.lane)
        self.flights.confirm(entry.key, now_s, now_s + self._pace.ack_timeout_s)

    def refused(self, entry: Entry, reason: int, now_s: float, jitter: float) -> float:
        """Note that the broker refused a batch; return how many seconds its lane, or only the batch, will wait.

        `reason` is the reason code of MQTT 5.
        """
        self.flights.remove(entry.key)
        return self.pauses.refuse(entry, reason, now_s, jitter)

    def acknowledged(self, keys: Iterable[Key], now_s: float) -> None:
        """Note that these batches were answered and will not be sent again."""
        keys = list(keys)
        self._heard(keys, now_s)
        for key in keys:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """Forget a batch that left the spool or cannot be sent now."""
        self.outstanding.forget(key)
        self.pauses.forget(key)
        self.requests.forget(key)

    def want(self, digest: bytes, keys: Iterable[Key], now_s: float) -> None:
        """Note that the receiver cannot store the batches `keys`, because it lacks the catalogue `digest`."""
        keys = list(keys)
        self._heard(keys, now_s)
        # Only batches that were sent can need a catalogue.  A digest for other batches must not take memory.
        sent = frozenset(keys) & self.outstanding.keys
        if not sent or not self.requests.add(digest, sent):
            return
        supplied_at_s = self.requests.supplied_at_s(digest)
        # Batches that were sent before the catalogue are sent again at once.  If the receiver lacks the catalogue for
        # any other batch, the catalogue was never sent or got lost.  Then the catalogue is sent.
        before = {flight.entry.key for flight in self.flights if flight.sent_at_s <= supplied_at_s} & sent
        self.outstanding.send_again(before, now_s)
        if before != sent:
            self.requests.ask(digest)

    def supplied(self, digest: bytes, now_s: float) -> None:
        """Note that the broker accepted a catalogue.  The batches that wait for it follow at once."""
        self.outstanding.send_again(self.requests.supplied(digest, now_s), now_s)

    # ---- within

    def _candidates(
        self, turn: Turn, waiting: Mapping[Turn, Sequence[Entry]], allowed: Collection[Lane], now_s: float
    ) -> Iterator[tuple[Entry, Lane]]:
        lane = POLICY[turn].lane
        if lane is not None:
            if lane in allowed:
                yield from ((entry, lane) for entry in waiting.get(turn, ()))
            return
        topics = self.pauses.open_lanes(now_s)
        busy = self.flights.keys | self.pauses.held(now_s)
        for silent in self._unanswered.due(now_s):
            if silent.lane in allowed and silent.entry.lane in topics and silent.entry.key not in busy:
                yield silent.entry, silent.lane

    def _may(self, turn: Turn, now_s: float, size_bytes: int = 0) -> bool:
        return self.flights.takes(turn, size_bytes) and self._silence.allows(turn, now_s)

    def _send(self, entry: Entry, lane: Lane, turn: Turn, now_s: float) -> None:
        self.flights.add(Flight(entry, lane, turn, now_s))
        self._unanswered.resent(entry.key)
        if lane is Lane.BACKLOG:
            self._bucket.take(entry.size_bytes, now_s)
        self._silence.sent(turn, now_s)

    def _patience_s(self, times: int) -> float:
        return self._pace.patience_s(times)

    def _expire(self, now_s: float) -> None:
        """Remove overdue batches from the window.  They are unanswered from now on."""
        for flight in self.outstanding.expire(now_s):
            self._silence.overdue(flight.turn, flight.sent_at_s)
        self._unanswered.others_answered(self._answered_s, self._pace.ack_timeout_s)

    def _heard(self, keys: Iterable[Key], now_s: float) -> None:
        self._silence.answered(now_s)
        for key in keys:
            if (flight := self.flights.get(key)) is not None:
                self._silence.heard(flight.turn)
                self._answered_s = max(self._answered_s, flight.sent_at_s)
                self.flights.grow()
