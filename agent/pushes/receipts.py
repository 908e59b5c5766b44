"""Turn the outcome of a push into a receipt, an event that travels to the fleet like data.  Pure.

Invariant: each change of the release in force has a receipt, and so have each passed trial and each refused push.  The
receipt is stored with the change, until the event is durable.  A crash in between may send it twice, but never drops
it.  A push that brings nothing new has no receipt.
"""

from enum import StrEnum

import msgspec

from agent.formats.up.columns import Event
from agent.pushes.health import Figure
from agent.pushes.release import Reason


class Result(StrEnum):
    """The possible results of an offered bundle, or of a trial."""

    UNCHANGED = "unchanged"
    """The bundle brought nothing new."""
    FETCHING = "fetching"
    """The bundle is trusted, and its release waits for chunks of large documents."""
    APPLIED = "applied"
    """A new release is in force, on trial."""
    REFUSED = "refused"
    """The bundle was refused, and the release in force stays."""
    CONFIRMED = "confirmed"
    """The release passed its trial, and is now the last known good release."""
    REVERTED = "reverted"
    """The release failed its trial or crashed the agent after it, and the release before is in force again."""


class PushOutcome(msgspec.Struct, frozen=True):
    """Holds the result of an offered bundle or of a trial.

    `version` is the version of the TUF targets, or 0 if the bundle is not trusted.  REFUSED and REVERTED have a
    `reason`.  `figures` has the measurements of a trial.
    """

    result: Result
    version: int
    reason: Reason | None = None
    detail: str = ""
    figures: dict[str, Figure] = {}


_KINDS = {
    Result.APPLIED: "push_applied",
    Result.REFUSED: "push_refused",
    Result.CONFIRMED: "push_confirmed",
    Result.REVERTED: "push_reverted",
}
_DETAIL_LETTERS = 300
"""The maximum length of `detail` in a receipt.  A hostile bundle may make it long, and a receipt must fit one batch."""


def receipt(outcome: PushOutcome, t_us: int) -> Event | None:
    """Return the event for the fleet at `t_us` (Unix time), or None if the outcome needs no receipt."""
    kind = _KINDS.get(outcome.result)
    # An unchanged or incomplete release is no news for the fleet.
    if kind is None:
        return None
    fields: dict[str, Figure] = {"version": outcome.version, **outcome.figures}
    if outcome.reason is not None:
        fields |= {"reason": str(outcome.reason), "detail": outcome.detail[:_DETAIL_LETTERS]}
    return Event(t_us=t_us, kind=kind, fields=fields)
