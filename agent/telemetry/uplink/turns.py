"""Holds the sending policy as a table: which kinds of batches there are, their order, and what each kind may use.

This file is pure.

A batch is sealed for one lane and travels in one lane.  The two differ for a live batch that is no longer fresh and for
a batch that was set aside (`unanswered`).  Both travel as backlog.  Whether the link and the rate limit of the
backlog let a batch go now depends on the lane in which it travels.  Its topic depends on the lane that it was sealed
for.

The life of a batch on one connection (`schedule` moves it, `flights` counts it while it is sent or confirmed):

                     choose             PUBACK below 0x80         acknowledgement
    in the spool ─────────────> sent ───────────────────> confirmed ─────────────> out of the spool
        ^                        │                            │
        │     PUBACK 0x80 and up │                            │ no acknowledgement in time
        └──── lane paused,  <────┘                            v
              or batch held                              unanswered ──── sent again, at growing intervals
"""

from enum import Enum
from typing import Final, NamedTuple

import msgspec

from agent.formats.topics import Lane

LANES: Final = (Lane.EVENTS, Lane.LIVE, Lane.BACKLOG)
"""All lanes in the order of sending."""


class Turn(Enum):
    """The kinds of batches, in the order in which they are sent.

    AGAIN is the kind of batches that were sent and not answered.
    """

    EVENTS = "events"
    LIVE = "live"
    AGAIN = "again"
    BACKLOG = "backlog"

    @property
    def beside(self) -> bool:
        """Return whether batches of this kind must never delay fresh data."""
        return POLICY[self].beside


class Supply(NamedTuple):
    """Batches in the spool that are sealed for `lane`.

    `fresh` limits them to fresh batches (True) or to batches that are not fresh (False).  None means no limit.
    """

    lane: Lane
    fresh: bool | None


class Rule(msgspec.Struct, frozen=True):
    """The resources that one kind of batches may use.

    `lane` is the lane in which these batches travel; None means that each batch keeps its lane until it is set aside.
    `supplies` says where to find them in the spool, in the order of sending; it is empty for batches that were sent
    before.  Batches with `beside` leave the last place and the last eighth of the bytes in the in-flight window to
    fresh data.  While the receiver does not answer, they are sent only as probes.  Batches with `limited` are sent no
    faster than the backlog may drain (`bucket`).
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
"""The kinds of batches that are sent for the first time."""
