"""What waits because the broker refused it: whole lanes, or single batches.  Pure: times are monotonic seconds.

A refusal concerns the topic, so the lane of that topic pauses, longer each time, until a batch of it is accepted.  Two
reason codes concern the one batch (too large, malformed): then only that batch waits.
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
    """The waits on one connection; `refusal` gives their lengths."""

    def __init__(self, refusal: Backoff) -> None:
        self._refusal = refusal
        self._held: dict[Key, float] = {}
        self._paused: dict[Lane, float] = {}
        self._refusals: dict[Lane, int] = {}

    def open_lanes(self, now_s: float) -> tuple[Lane, ...]:
        """Return the lanes whose topics take batches, in the order of sending."""
        return tuple(lane for lane in LANES if self._paused.get(lane, now_s) <= now_s)

    def paused_until_s(self, lane: Lane, default_s: float) -> float:
        """When the lane opens; `default_s` where it was never paused."""
        return self._paused.get(lane, default_s)

    def held(self, now_s: float) -> Set[Key]:
        """Return the batches that wait by themselves."""
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        return self._held.keys()

    def ends_s(self) -> Iterable[float]:
        """When each wait ends; some may have ended."""
        return [*self._paused.values(), *self._held.values()]

    def refuse(self, entry: Entry, reason: int, now_s: float, jitter: float) -> float:
        """Note a refusal (`reason` is MQTT 5's code); return the seconds that lane or batch will wait."""
        if reason in _OF_ONE_BATCH and len(self._held) < MAX_HELD:
            self._held[entry.key] = now_s + self._refusal.cap_s
            return self._refusal.cap_s
        return self.pause(entry.lane, now_s, jitter)

    def pause(self, lane: Lane, now_s: float, jitter: float) -> float:
        """Pause a lane; return for how many seconds."""
        # Several refusals of one burst count once: the batches were on their way before the first refusal came.
        if self._paused.get(lane, now_s) <= now_s:
            self._refusals[lane] = self._refusals.get(lane, 0) + 1
            self._paused[lane] = now_s + self._refusal.wait_s(self._refusals[lane], jitter)
        return self._paused[lane] - now_s

    def accepted(self, lane: Lane) -> None:
        """Note that the broker accepted a batch of the lane: the next pause is a short one again."""
        self._refusals.pop(lane, None)

    def forget(self, key: Key) -> None:
        """Forget a batch that left the spool."""
        self._held.pop(key, None)
