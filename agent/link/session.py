"""Decide when to connect to the broker and how long to wait before the next attempt, by a state table.  Pure.

Invariants: an event that the table does not list for a state is a programming error.  After a failure,
the broker is not contacted before the back-off has passed.  A link that drops right after connecting does not reset the
back-off.

    OFFLINE     --START-->   CONNECTING            CONNECTING --CONNECTED--> ONLINE
    CONNECTING  --FAILED-->  BACKING_OFF           ONLINE     --LOST-->      BACKING_OFF
    BACKING_OFF --WAITED-->  CONNECTING            any state  --STOP-->      OFFLINE

The wait is exponential with full jitter: uniform between `floor_s` and min(`cap_s`, `base_s` * 2**(failures - 1)).
The jitter keeps the vehicles of a fleet from all returning to a lost broker at the same time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec


class State(Enum):
    """The states of the link."""

    OFFLINE = "offline"
    CONNECTING = "connecting"
    ONLINE = "online"
    BACKING_OFF = "backing_off"


class Event(Enum):
    """The events that change the state of the link."""

    START = "start"
    CONNECTED = "connected"
    FAILED = "failed"
    LOST = "lost"
    WAITED = "waited"
    STOP = "stop"


TABLE: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.OFFLINE, Event.START): State.CONNECTING,
        (State.CONNECTING, Event.CONNECTED): State.ONLINE,
        (State.CONNECTING, Event.FAILED): State.BACKING_OFF,
        (State.ONLINE, Event.LOST): State.BACKING_OFF,
        (State.BACKING_OFF, Event.WAITED): State.CONNECTING,
        **{(state, Event.STOP): State.OFFLINE for state in State},
    }
)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Holds the limits of the wait between attempts, in seconds.

    After `stable_s` online, earlier failures no longer count.
    """

    floor_s: float = 0.5
    base_s: float = 1.0
    cap_s: float = 60.0
    stable_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.floor_s <= self.base_s <= self.cap_s or self.stable_s < 0:
            raise ValueError(f"back-off needs 0 < floor_s <= base_s <= cap_s and stable_s >= 0, got {self}")

    def wait_s(self, failures: int, jitter: float) -> float:
        """Return the seconds to wait after `failures` failures in a row (>= 1); `jitter` is uniform in [0, 1)."""
        doublings = min(failures - 1, 32)  # beyond any sensible cap; keeps the power a small number
        ceiling = min(self.cap_s, self.base_s * 2.0**doublings)
        return self.floor_s + jitter * (ceiling - self.floor_s)


class Session(msgspec.Struct, frozen=True):
    """Holds the state of the link at one moment.

    Times are seconds of the monotonic clock.  `failures` counts failures in a row.  The link entered `state` at
    `since_s`.  The next attempt is due at `retry_at_s`, which is 0 outside BACKING_OFF.
    """

    backoff: Backoff
    state: State = State.OFFLINE
    failures: int = 0
    since_s: float = 0.0
    retry_at_s: float = 0.0

    def after(self, event: Event, *, now_s: float, jitter: float) -> "Session":
        """Return the session after `event`; `jitter` is uniform in [0, 1).

        Raises: ValueError if `event` cannot happen in this state.
        """
        try:
            state = TABLE[self.state, event]
        except KeyError:
            raise ValueError(f"{event.name} cannot happen in {self.state.name}") from None
        failures = self.failures
        if event is Event.STOP:
            failures = 0
        elif state is State.BACKING_OFF:
            stable = self.state is State.ONLINE and now_s - self.since_s >= self.backoff.stable_s
            failures = 1 if stable else self.failures + 1
        retry_at_s = now_s + self.backoff.wait_s(failures, jitter) if state is State.BACKING_OFF else 0.0
        return Session(self.backoff, state, failures, now_s, retry_at_s)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds left before the event WAITED is due; 0 outside BACKING_OFF."""
        return max(0.0, self.retry_at_s - now_s)
