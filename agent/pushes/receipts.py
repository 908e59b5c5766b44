"""Receipts: what became of a push, as an event that travels up like data.  Pure.

Invariant: a push that changed what the vehicle does has exactly one receipt for each change, and so has a push that was
refused.  A push that brought nothing new has none.
"""

from dataclasses import dataclass
from enum import StrEnum

from agent.formats.up.columns import Event
from agent.pushes.release import Reason


class Result(StrEnum):
    """The end of an offered bundle, or of a release on trial."""

    UNCHANGED = "unchanged"
    """The bundle has nothing new."""
    APPLIED = "applied"
    """A new release is in force, on trial."""
    REFUSED = "refused"
    """The bundle was refused, and nothing changed."""
    CONFIRMED = "confirmed"
    """The release on trial has proved itself."""
    REVERTED = "reverted"
    """The release on trial did harm, and the one before is in force again."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """The result of an offer or of a trial.

    `version` is that of targets, and 0 where it could not be trusted.  REFUSED and REVERTED have a `reason`.
    """

    result: Result
    version: int
    reason: Reason | None = None
    detail: str = ""


_KINDS = {Result.APPLIED: "push_applied", Result.REFUSED: "push_refused", Result.REVERTED: "push_reverted"}
_DETAIL_LETTERS = 300
"""How much of a reason's detail travels: it may quote a hostile bundle, and a receipt must fit one batch."""


def receipt(outcome: PushOutcome, t_us: int) -> Event | None:
    """Return the event for the fleet at `t_us` (Unix time), or None where the outcome has no receipt."""
    kind = _KINDS.get(outcome.result)
    # A confirmed trial shows in the status of the vehicle, and an unchanged release would tell the fleet nothing.
    if kind is None:
        return None
    fields: dict[str, str | int | float | bool] = {"version": outcome.version}
    if outcome.reason is not None:
        fields |= {"reason": str(outcome.reason), "detail": outcome.detail[:_DETAIL_LETTERS]}
    return Event(t_us=t_us, kind=kind, fields=fields)
