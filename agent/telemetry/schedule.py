"""What the uplink sends next: the in-flight window, re-sending, and patience with refusals.  Pure.

Invariants: the window (agent.telemetry.flights) bounds what is not answered for; none is sent twice within
`ack_timeout_s`; backlog never takes the last place in the window; and whatever does not answer (a receiver that is
down, a broker that refuses) is asked at exponentially growing intervals, so nothing here can become a hot loop.  Time
comes in as an argument (monotonic seconds), as does randomness.

Turns.  Events go first, then fresh data, then what is sent again, then the backlog, within its rate (`bucket`).  A kind
whose batch got no answer goes last until one does, so what nobody can answer takes its turn with the others and holds
up none of them.

Re-sending.  A batch whose acknowledgement is overdue gives its place in the window up, and waits (`unanswered`) to be
sent again.  Where *no* acknowledgement came since it was sent, the receiver is taken to be away, and only one batch at
a time probes for it: an outage of the receiver costs a few batches of bandwidth, not the window again and again.  A
kind whose last batch was answered need not probe: fresh data does not wait because the backlog gets no answer.

Catalogues.  Where the receiver wants the catalogue of a batch, that is sent first, then the batch at once; a digest
again only after growing intervals, whatever the receiver says, and at most MAX_WANTED of them are remembered.

Refusals.  The broker's refusal of a message concerns its topic, so the lane pauses; where it concerns the one batch
(too large, malformed) only that batch waits, up to MAX_HELD of them.

A lane here is the one in which a batch travels: what was sealed for the live lane travels as backlog when it is old.
Only the topic, and so a pause, goes by the lane that it was sealed for.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.telemetry.bucket import TokenBucket
from agent.telemetry.flights import Flight, Flights, Turn
from agent.telemetry.spool_batch import Entry
from agent.telemetry.unanswered import Key, Unanswered

LANES: Final = (Lane.EVENTS, Lane.LIVE, Lane.BACKLOG)  # in the order of sending
MAX_HELD: Final = 64
MAX_WANTED: Final = 64
AT_ONCE: Final = 32  # more than are read while as many are on the wire
REFUSAL: Final = Backoff(floor_s=1.0, base_s=2.0, cap_s=300.0)
_OF_ONE_BATCH: Final = frozenset({0x95, 0x99})  # MQTT 5: packet too large, payload format invalid


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of sending.

    `in_flight` batches wait for their acknowledgement, of them `receive_maximum` and `unconfirmed_bytes` for the
    broker's; `patience_cap_s` bounds the growing intervals of probes and of asking for catalogues.
    """

    in_flight: int
    ack_timeout_s: float
    unconfirmed_bytes: int = 1_000_000
    receive_maximum: int = 65_535
    patience_cap_s: float = 300.0
    refusal: Backoff = REFUSAL


@dataclass(slots=True)
class _Wanted:
    keys: frozenset[Key]  # of the batches that wait for it
    asked: bool = True
    supplied_s: float = -math.inf
    next_s: float = -math.inf
    times: int = 0


class Schedule:
    """The state of sending over one connection; `bucket` and `unanswered` outlive it."""

    def __init__(self, pace: Pace, bucket: TokenBucket, unanswered: Unanswered) -> None:
        self._pace = pace
        self._bucket = bucket
        self._unanswered = unanswered
        self._flights = Flights(pace.in_flight, pace.receive_maximum, pace.unconfirmed_bytes)
        self._held: dict[Key, float] = {}
        self._paused: dict[Lane, float] = {}
        self._refusals: dict[Lane, int] = {}
        self._wanted: dict[bytes, _Wanted] = {}
        self._last_ack_s = -math.inf
        self._answered_s = -math.inf  # when the latest of what is answered was sent
        self._silent = False  # nobody answers
        self._probes = 0
        self._next_probe_s = -math.inf
        self._unheard: dict[Turn, int] = {}  # which kinds go last, in the order in which they got no answer
        self._expired = 0

    # ---- what to send

    def room(self) -> int:
        """How many more batches the window has room for, as far as it pays to look."""
        return min(self._flights.room(), AT_ONCE)

    @property
    def is_hungry(self) -> bool:
        """Whether the broker has confirmed so much that it soon has nothing to do."""
        return self._flights.is_hungry

    def lanes(self, now_s: float) -> tuple[Lane, ...]:
        """The lanes whose topics take batches, in their order."""
        return tuple(lane for lane in LANES if self._paused.get(lane, now_s) <= now_s)

    def new_lanes(self, allowed: Collection[Lane], now_s: float) -> list[Lane]:
        """The lanes that batches may travel in for the first time, of those that the link allows, in their order."""
        self._expire(now_s)
        turns = [turn for turn in self._order() if turn is not Turn.AGAIN and self._may(turn, now_s)]
        lanes = [Lane(turn.value) for turn in turns]
        backlog = self._bucket.is_open(now_s) and not self._unanswered.is_full
        return [lane for lane in lanes if lane in allowed and (lane is not Lane.BACKLOG or backlog)]

    def busy(self, now_s: float) -> Set[Key]:
        """Batches that must not be sent as new ones: in flight, unanswered, or held after a refusal."""
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        return self._flights.keys | self._held.keys() | self._unanswered.keys

    def choose(
        self, waiting: Mapping[Lane, Sequence[Entry]], allowed: Collection[Lane], now_s: float
    ) -> list[tuple[Entry, bool]]:
        """What to send now, and whether again.  The caller does send them.

        `waiting`: by the lane that they travel in, batches that are not busy and whose topic takes them; `allowed`: the
        lanes that the link allows.
        """
        self._expire(now_s)
        chosen: list[tuple[Entry, bool]] = []
        for turn in self._order():
            if not self._may(turn, now_s):
                continue
            for entry, lane in list(self._candidates(turn, waiting, allowed, now_s)):
                if not self._may(turn, now_s, entry.size_bytes):
                    break
                if lane is Lane.BACKLOG and not self._bucket.is_open(now_s):
                    continue
                self._send(entry, lane, turn, now_s)
                chosen.append((entry, turn is Turn.AGAIN))
        return chosen

    def wake_at_s(self, allowed: Collection[Lane], now_s: float) -> float | None:
        """When to choose again though nothing happened; None: not before something does.

        `now_s`: when the last choice was made.
        """
        times = [*self._paused.values(), *self._held.values(), self._unanswered.next_due_s(now_s)]
        if self._silent:
            times.append(self._next_probe_s)
        if Lane.BACKLOG in allowed:
            times.append(self._bucket.opens_at_s(now_s))
        paused_s = self._paused.get(Lane.EVENTS, -math.inf)
        times += [max(wanted.next_s, paused_s) for wanted in self._wanted.values() if wanted.asked]
        times += [flight.overdue_at_s for flight in self._flights]
        at_s = min((at_s for at_s in times if at_s > now_s), default=math.inf)
        return None if at_s == math.inf else at_s

    # ---- what became of it

    def published(self, entry: Entry, now_s: float) -> None:
        """The broker accepted it; the receiver's acknowledgement is due from now on."""
        self._refusals.pop(entry.lane, None)
        self._flights.confirm(entry.key, now_s, now_s + self._pace.ack_timeout_s)

    def acknowledged(self, keys: Iterable[Key], now_s: float) -> None:
        """The receiver answered for these batches."""
        keys = list(keys)
        self._heard(keys, now_s)
        for key in keys:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """The batch is no longer in the spool."""
        self._flights.remove(key)
        self._held.pop(key, None)
        self._unanswered.forget(key)
        for digest, wanted in list(self._wanted.items()):
            if key in wanted.keys:  # it was stored, so the receiver has the catalogue
                del self._wanted[digest]

    def want(self, digest: bytes, keys: Iterable[Key], now_s: float) -> None:
        """The receiver lacks a catalogue, and so cannot store these batches of one epoch."""
        keys = list(keys)
        self._heard(keys, now_s)
        sent = frozenset(keys) & (self._flights.keys | self._unanswered.keys)
        if not sent or (digest not in self._wanted and len(self._wanted) >= MAX_WANTED):
            return
        wanted = self._wanted.setdefault(digest, _Wanted(sent))
        wanted.keys |= sent
        before = {flight.entry.key for flight in self._flights if flight.sent_at_s <= wanted.supplied_s} & sent
        self._follow(before, now_s)
        wanted.asked = wanted.asked or before != sent

    def take_wanted(self, now_s: float) -> list[bytes]:
        """Catalogues to send now.  The caller does send them."""
        if Lane.EVENTS not in self.lanes(now_s):
            return []
        due = [digest for digest, wanted in self._wanted.items() if wanted.asked and wanted.next_s <= now_s]
        for digest in due:
            wanted = self._wanted[digest]
            wanted.asked = False
            wanted.next_s = now_s + self._patience_s(wanted.times)
            wanted.times += 1
        return due

    def waiting_for(self, digest: bytes) -> list[Key]:
        """The batches that wait for a catalogue."""
        wanted = self._wanted.get(digest)
        return [] if wanted is None else sorted(wanted.keys)

    def supplied(self, digest: bytes, now_s: float) -> None:
        """The broker accepted the catalogue: what waits for it follows at once."""
        if (wanted := self._wanted.get(digest)) is not None:
            wanted.supplied_s = now_s
            self._follow(wanted.keys, now_s)

    def refused(self, entry: Entry, reason: int, now_s: float, jitter: float) -> float:
        """The broker refused it (MQTT 5 reason code); returns the seconds that lane or batch will wait."""
        self._flights.remove(entry.key)
        if reason in _OF_ONE_BATCH and len(self._held) < MAX_HELD:
            self._held[entry.key] = now_s + self._pace.refusal.cap_s
            return self._pace.refusal.cap_s
        return self.pause(entry.lane, now_s, jitter)

    def pause(self, lane: Lane, now_s: float, jitter: float) -> float:
        """Let a lane's topic wait, longer each time until a batch of it is accepted; returns the seconds."""
        if self._paused.get(lane, now_s) <= now_s:  # several refusals of one burst count once
            self._refusals[lane] = self._refusals.get(lane, 0) + 1
            self._paused[lane] = now_s + self._pace.refusal.wait_s(self._refusals[lane], jitter)
        return self._paused[lane] - now_s

    # ---- within

    def _order(self) -> list[Turn]:
        return sorted(Turn, key=lambda turn: self._unheard.get(turn, 0))

    def _candidates(
        self, turn: Turn, waiting: Mapping[Lane, Sequence[Entry]], allowed: Collection[Lane], now_s: float
    ) -> Iterator[tuple[Entry, Lane]]:
        if turn is not Turn.AGAIN:
            lane = Lane(turn.value)
            yield from ((entry, lane) for entry in waiting.get(lane, ()) if lane in allowed)
            return
        topics = self.lanes(now_s)
        for silent in self._unanswered.due(now_s):
            key = silent.entry.key
            if (
                silent.lane in allowed
                and silent.entry.lane in topics
                and key not in self._flights.keys
                and key not in self._held
            ):
                yield silent.entry, silent.lane

    def _may(self, turn: Turn, now_s: float, size_bytes: int = 0) -> bool:
        """Whether a batch of that kind and size may be sent now."""
        return self._flights.takes(turn, size_bytes) and (not self._probing(turn) or now_s >= self._next_probe_s)

    def _probing(self, turn: Turn) -> bool:
        return self._silent and (turn.beside or turn in self._unheard)

    def _send(self, entry: Entry, lane: Lane, turn: Turn, now_s: float) -> None:
        self._flights.add(Flight(entry, lane, turn, now_s))
        self._unanswered.resent(entry.key)
        if lane is Lane.BACKLOG:
            self._bucket.take(entry.size_bytes, now_s)
        if self._probing(turn):
            self._next_probe_s = now_s + self._patience_s(self._probes)
            self._probes += 1

    def _follow(self, keys: Set[Key], now_s: float) -> None:
        """What these waited for is on its way: send them again at once."""
        for key in sorted(keys):
            flight = self._flights.get(key)
            if flight is not None and flight.confirmed:
                self._flights.remove(key)
                self._unanswered.note(flight.entry, flight.lane, flight.sent_at_s, now_s)
        self._unanswered.hurry(keys, now_s)

    def _expire(self, now_s: float) -> None:
        """Overdue batches give their places up."""
        for flight in self._flights:
            if flight.overdue_at_s > now_s:
                continue
            self._flights.remove(flight.entry.key)
            self._unanswered.note(flight.entry, flight.lane, flight.sent_at_s, now_s)
            self._silent = self._silent or self._last_ack_s < flight.sent_at_s
            self._expired += 1
            self._unheard[flight.turn] = self._expired
        self._unanswered.others_answered(self._answered_s, self._pace.ack_timeout_s)

    def _heard(self, keys: Iterable[Key], now_s: float) -> None:
        """The receiver answered, whatever it said."""
        self._last_ack_s = now_s
        self._silent = False
        self._probes = 0
        self._next_probe_s = -math.inf
        for key in keys:
            if (flight := self._flights.get(key)) is not None:
                self._unheard.pop(flight.turn, None)
                self._answered_s = max(self._answered_s, flight.sent_at_s)
                self._flights.grow()

    def _patience_s(self, times: int) -> float:
        return min(self._pace.patience_cap_s, self._pace.ack_timeout_s * 2.0 ** min(times, 32))
