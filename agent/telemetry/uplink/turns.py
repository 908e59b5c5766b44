"""The sending policy as a table: which batches take turns, in which order, and what each kind may use.  Pure.

A batch is sealed for one lane and travels in one lane.  They differ for the live lane only: a live batch that is no
longer fresh travels as backlog.  Where it travels decides its turn; the lane that it was sealed for decides its topic.

The life of a batch on one connection (`schedule` moves it, `flights` counts it while it is sent or confirmed):

                     choose             PUBACK below 0x80         acknowledgement
    in the spool ─────────────> sent ───────────────────> confirmed ─────────────> out of the spool
        ^                        │                            │
        │     PUBACK 0x80 and up │                            │ no acknowledgement in time
        └──── lane paused,  <────┘                            v
              or batch held                              unanswered ──── sent again, at growing intervals
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from agent.formats.topics import Lane

LANES: Final = (Lane.EVENTS, Lane.LIVE, Lane.BACKLOG)
"""In the order of sending."""


class Turn(Enum):
    """The kinds of batches that take turns, in their order."""

    EVENTS = "events"
    LIVE = "live"
    AGAIN = "again"
    BACKLOG = "backlog"

    @property
    def beside(self) -> bool:
        """Whether batches of this kind must never be in the way of fresh data."""
        return POLICY[self].beside


class Supply(NamedTuple):
    """Batches of the spool: sealed for `lane`, and fresh (True), not fresh (False), or either (None)."""

    lane: Lane
    fresh: bool | None


@dataclass(frozen=True, slots=True)
class Rule:
    """The resources that one kind of batches may use.

    `lane`: the lane in which these batches travel; None if each batch keeps the lane of its first sending.
    `supplies`: where to find them in the spool, in the order of sending; empty for batches that were sent before.
    `beside`: these batches leave the last place and the last eighth of the bytes of the window to fresh data, and
    while the receiver does not answer they are sent as probes only.
    `limited`: the rate of the backlog applies (`bucket`).
    """

    lane: Lane | None
    supplies: tuple[Supply, ...]
    beside: bool = False
    limited: bool = False


POLICY: Final = {
    Turn.EVENTS: Rule(Lane.EVENTS, (Supply(Lane.EVENTS, None),)),
    Turn.LIVE: Rule(Lane.LIVE, (Supply(Lane.LIVE, True),)),
    Turn.AGAIN: Rule(None, (), beside=True),
    Turn.BACKLOG: Rule(Lane.BACKLOG, (Supply(Lane.LIVE, False), Supply(Lane.BACKLOG, None)), beside=True, limited=True),
}
NEW: Final = tuple((turn, rule) for turn, rule in POLICY.items() if rule.supplies)
"""The kinds that come from the spool for the first time."""
