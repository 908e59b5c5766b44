"""Keeps the lanes and the single batches that wait because the broker refused them.  This file is pure.

Times are monotonic seconds.  Most refusals concern the topic, so the lane of that topic pauses.  The pauses grow until
a batch of the lane is accepted.  Two reason codes concern a single batch (too large, malformed), so only that batch
waits.
"""

from collections.abc import Iterable, Set
from typing import Final

from agent.formats.topics import Lane
from agent.link.session import Backoff
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.turns import LANES
from agent.telemetry.uplink.unanswered import Key

MAX_HELD: Final = 64  # batches; beyond that the lane pauses, so that memory stays bounded
_OF_ONE_BATCH: Final = frozenset({0x95, 0x99})  # MQTT 5, 2.4: packet too large, payload format invalid


class Pauses:
    """Holds the pauses on one connection; `refusal` gives their lengths."""

    def __init__(self, refusal: Backoff) -> None:
        self._refusal = refusal
        self._held: dict[Key, float] = {}
        self._paused: dict[Lane, float] = {}
        self._refusals: dict[Lane, int] = {}

    def open_lanes(self, now_s: float) -> tuple[Lane, ...]:
        """Return the lanes that are not paused, in the order of sending."""
        return tuple(lane for lane in LANES if self._paused.get(lane, now_s) <= now_s)

    def paused_until_s(self, lane: Lane, default_s: float) -> float:
        """Return when the pause of the lane ends or has ended, or `default_s` if the lane has never paused."""
        return self._paused.get(lane, default_s)

    def held(self, now_s: float) -> Set[Key]:
        """Return the ids of the single batches that still wait at `now_s`."""
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        return self._held.keys()

    def ends_s(self) -> Iterable[float]:
        """Return when each pause ends.  Some may have ended already."""
        return [*self._paused.values(), *self._held.values()]

    def refuse(self, entry: Entry, reason: int, now_s: float, jitter: float) -> float:
        """Note that the broker refused a batch; return how many seconds its lane, or only the batch, will wait.

        `reason` is the reason code of MQTT 5.
        """
        if reason in _OF_ONE_BATCH and len(self._held) < MAX_HELD:
            self._held[entry.key] = now_s + self._refusal.cap_s
            return self._refusal.cap_s
        return self.pause(entry.lane, now_s, jitter)

    def pause(self, lane: Lane, now_s: float, jitter: float) -> float:
        """Pause a lane, unless it is paused already; return how many seconds the pause still lasts."""
        # Several refusals of one burst count once: the batches were on their way before the first refusal came.
        if self._paused.get(lane, now_s) <= now_s:
            self._refusals[lane] = self._refusals.get(lane, 0) + 1
            self._paused[lane] = now_s + self._refusal.wait_s(self._refusals[lane], jitter)
        return self._paused[lane] - now_s

    def accepted(self, lane: Lane) -> None:
        """Note that the broker accepted a batch of the lane, so the next pause will be short again."""
        self._refusals.pop(lane, None)

    def forget(self, key: Key) -> None:
        """Forget a batch that left the spool."""
        self._held.pop(key, None)
