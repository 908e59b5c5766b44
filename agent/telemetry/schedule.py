"""What the uplink sends next: the in-flight window, re-sending, and patience with refusals.  Pure.

Invariants: at most `in_flight` batches are unacknowledged; none is sent twice within `ack_timeout_s`; and whatever
does not answer (a receiver that is down, a broker that refuses) is asked at exponentially growing intervals, so
nothing here can become a hot loop.  Time comes in as an argument (monotonic seconds), as does randomness.

Re-sending.  A batch whose acknowledgement is overdue is sent again, each time with twice the patience.  Where *no*
acknowledgement came since it was sent, the receiver is taken to be away, and only one batch at a time probes for it:
an outage of the receiver costs a few batches of bandwidth, not the window again and again.

Catalogues.  Where the receiver wants the catalogue of a batch, that is sent first, then the batch at once; a digest
again only after growing intervals, whatever the receiver says, and at most MAX_WANTED of them are remembered.

Refusals.  The broker's refusal of a message concerns its topic, so the lane pauses; where it concerns the one batch
(too large, malformed) only that batch waits, up to MAX_HELD of them.
"""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.telemetry.spool_index import Entry

Key = tuple[str, int]

LANES: Final = (Lane.EVENTS, Lane.LIVE, Lane.BACKLOG)  # in the order of sending
MAX_HELD: Final = 64
MAX_WANTED: Final = 64
REFUSAL: Final = Backoff(floor_s=1.0, base_s=2.0, cap_s=300.0)
_OF_ONE_BATCH: Final = frozenset({0x95, 0x99})  # MQTT 5: packet too large, payload format invalid


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of sending.  `patience_cap_s` bounds the growing intervals of probes and repeats."""

    in_flight: int
    ack_timeout_s: float
    patience_cap_s: float = 300.0
    refusal: Backoff = REFUSAL


@dataclass(slots=True)
class _Flight:
    entry: Entry
    sent_at_s: float
    overdue_at_s: float  # infinite until the broker has it
    times: int


@dataclass(slots=True)
class _Wanted:
    keys: frozenset[Key]  # of the batches that wait for it
    asked: bool = True
    next_s: float = -math.inf
    times: int = 0


class Schedule:
    """The state of sending over one connection."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._flights: dict[Key, _Flight] = {}
        self._held: dict[Key, float] = {}
        self._paused: dict[Lane, float] = {}
        self._refusals: dict[Lane, int] = {}
        self._wanted: dict[bytes, _Wanted] = {}
        self._last_ack_s = -math.inf
        self._probes = 0
        self._next_probe_s = -math.inf

    def room(self) -> int:
        """How many more batches may be sent now."""
        return max(0, self._pace.in_flight - len(self._flights))

    def lanes(self, now_s: float) -> tuple[Lane, ...]:
        """The lanes that may send, in their order."""
        return tuple(lane for lane in LANES if self._paused.get(lane, now_s) <= now_s)

    def busy(self, now_s: float) -> Set[Key]:
        """Batches that must not be sent as new ones: in flight, or held after a refusal."""
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        return self._flights.keys() | self._held.keys()

    def send(self, entry: Entry, now_s: float) -> None:
        """A batch is being sent, for the first time or again."""
        flight = self._flights.get(entry.key)
        times = 1 if flight is None else flight.times + 1
        self._flights[entry.key] = _Flight(entry, now_s, math.inf, times)

    def published(self, entry: Entry, now_s: float) -> None:
        """The broker accepted it; the receiver's acknowledgement is due from now on."""
        self._refusals.pop(entry.lane, None)
        if (flight := self._flights.get(entry.key)) is not None:
            flight.sent_at_s = now_s
            flight.overdue_at_s = now_s + self._patience_s(flight.times - 1)

    def acknowledged(self, keys: Iterable[Key], now_s: float) -> None:
        """The receiver answered for these batches."""
        self._last_ack_s = now_s
        self._probes = 0
        self._next_probe_s = -math.inf
        for key in keys:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """The batch is no longer in the spool."""
        self._flights.pop(key, None)
        self._held.pop(key, None)
        for digest, wanted in list(self._wanted.items()):
            if key in wanted.keys:  # it was stored, so the receiver has the catalogue
                del self._wanted[digest]

    def want(self, digest: bytes, keys: Iterable[Key], now_s: float) -> None:
        """The receiver lacks a catalogue, and so cannot store these batches of one epoch."""
        self._last_ack_s = now_s
        flying = frozenset(keys) & self._flights.keys()
        if not flying or (digest not in self._wanted and len(self._wanted) >= MAX_WANTED):
            return
        wanted = self._wanted.setdefault(digest, _Wanted(flying))
        wanted.keys |= flying
        wanted.asked = True

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
        for key in self.waiting_for(digest):
            if (flight := self._flights.get(key)) is not None and flight.overdue_at_s < math.inf:
                flight.overdue_at_s = now_s

    def refused(self, entry: Entry, reason: int, now_s: float, jitter: float) -> float:
        """The broker refused it (MQTT 5 reason code); returns the seconds that lane or batch will wait."""
        self._flights.pop(entry.key, None)
        if reason in _OF_ONE_BATCH and len(self._held) < MAX_HELD:
            self._held[entry.key] = now_s + self._pace.refusal.cap_s
            return self._pace.refusal.cap_s
        return self.pause(entry.lane, now_s, jitter)

    def pause(self, lane: Lane, now_s: float, jitter: float) -> float:
        """Let a lane wait, longer each time until a batch of it is accepted; returns the seconds."""
        if self._paused.get(lane, now_s) <= now_s:  # several refusals of one burst count once
            self._refusals[lane] = self._refusals.get(lane, 0) + 1
            self._paused[lane] = now_s + self._pace.refusal.wait_s(self._refusals[lane], jitter)
        return self._paused[lane] - now_s

    def take_overdue(self, now_s: float) -> list[Entry]:
        """Batches to send again now, longest waiting first.  The caller does send them."""
        paused = set(LANES) - set(self.lanes(now_s))
        due = sorted(
            (
                flight
                for flight in self._flights.values()
                if flight.overdue_at_s <= now_s and flight.entry.lane not in paused
            ),
            key=lambda flight: flight.sent_at_s,
        )
        if not due or self._last_ack_s >= due[0].sent_at_s:
            return [flight.entry for flight in due]
        if now_s < self._next_probe_s:
            return []
        self._next_probe_s = now_s + self._patience_s(self._probes)
        self._probes += 1
        return [due[0].entry]

    def wake_at_s(self, now_s: float) -> float | None:
        """When to look again though nothing happened; None: not before something does."""
        times = [until_s for until_s in (*self._paused.values(), *self._held.values()) if until_s > now_s]
        if self._wanted:
            paused_s = self._paused.get(Lane.EVENTS, -math.inf)
            times += [max(wanted.next_s, paused_s, now_s) for wanted in self._wanted.values() if wanted.asked]
        if self._flights:
            overdue_s = min(
                max(flight.overdue_at_s, self._paused.get(flight.entry.lane, -math.inf))
                for flight in self._flights.values()
            )
            times.append(max(overdue_s, self._next_probe_s))
        at_s = min(times, default=math.inf)
        return None if at_s == math.inf else at_s

    def _patience_s(self, times: int) -> float:
        return min(self._pace.patience_cap_s, self._pace.ack_timeout_s * 2.0 ** min(times, 32))
