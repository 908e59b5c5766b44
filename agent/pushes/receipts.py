"""Receipts: what became of a push, as an event that travels up like data.  Pure.

Invariant: every push that changed what the vehicle does, or was kept from doing so, has exactly one receipt per change;
a push that brought nothing new has none.
"""

from dataclasses import dataclass
from enum import StrEnum

from agent.formats.up.columns import Event
from agent.pushes.release import Reason


class Result(StrEnum):
    """What became of an offered bundle, or of the release on trial."""

    UNCHANGED = "unchanged"  # nothing new
    APPLIED = "applied"  # a new release is in force, on trial
    REFUSED = "refused"  # nothing changed
    CONFIRMED = "confirmed"  # the trial is over, well
    REVERTED = "reverted"  # the trial is over, badly: the release before is in force again


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """`version` of targets (0 where it could not be trusted), and for REFUSED and REVERTED why."""

    result: Result
    version: int
    reason: Reason | None = None
    detail: str = ""


_KINDS = {Result.APPLIED: "push_applied", Result.REFUSED: "push_refused", Result.REVERTED: "push_reverted"}
_DETAIL_LETTERS = 300


def receipt(outcome: PushOutcome, t_us: int) -> Event | None:
    """The event for the fleet at `t_us` (Unix epoch), or None where there is nothing to tell."""
    kind = _KINDS.get(outcome.result)
    if kind is None:
        return None
    fields: dict[str, str | int | float | bool] = {"version": outcome.version}
    if outcome.reason is not None:
        fields |= {"reason": str(outcome.reason), "detail": outcome.detail[:_DETAIL_LETTERS]}
    return Event(t_us=t_us, kind=kind, fields=fields)
