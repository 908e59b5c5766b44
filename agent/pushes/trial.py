"""Decide which release is in force: the release on trial or, without a trial, the last known good release.  Pure.

    commit ---> trial ---(healthy for trial_s)---> current
                  |
                  +--(unhealthy, or too many starts without success)---> refused, and `current` is in force again

Invariant: `current` has passed its trial, and only a release on trial is ever reverted.

An attempt is counted just before the release is applied, so a release that kills the agent at once runs out of
attempts.  A clean stop gives the attempt back, so only crashes count.
"""

from enum import Enum, auto
from typing import Final

import msgspec

ATTEMPTS: Final = 3
"""The number of starts that a release on trial gets.

Two of them may end because the vehicle lost power, which says nothing about the release.
"""


class Ref(msgspec.Struct, frozen=True):
    """Names a stored release by its version of targets and the SHA-256 (hex) of its file."""

    version: int
    digest: str


class Slots(msgspec.Struct, frozen=True):
    """Names the releases that are kept: `current` is the last known good one, `trial` is the one on trial.

    `attempts` counts the starts with the release on trial.  `refused` is the newest version of targets that was trusted
    but unusable, or that failed its trial; 0 means none.
    """

    current: Ref | None = None
    trial: Ref | None = None
    attempts: int = 0
    refused: int = 0

    @property
    def in_force(self) -> Ref | None:
        """Return the release to apply, or None if there is none."""
        return self.trial or self.current

    @property
    def settled(self) -> tuple[int, ...]:
        """Return the versions of the targets role that need no further check: in force, and newest refused."""
        applied = () if self.in_force is None else (self.in_force.version,)
        return applied if self.refused == 0 else (*applied, self.refused)


class Decision(Enum):
    """The possible decisions about a running trial."""

    WAIT = auto()
    CONFIRM = auto()
    REVERT = auto()


def commit(slots: Slots, ref: Ref) -> Slots:
    """Put a verified release on trial, and count its first attempt.  A release that is on trial already is replaced."""
    # `current` stays, because the agent must never return to a release that has not passed its trial.
    return Slots(current=slots.current, trial=ref, attempts=1, refused=slots.refused)


def refuse(slots: Slots, version: int) -> Slots:
    """Record that a trusted version is unusable.  The release in force stays."""
    return msgspec.structs.replace(slots, refused=max(version, slots.refused))


def restart(slots: Slots) -> Slots:
    """If a release is on trial, count one more attempt, or revert the release if its attempts are used up."""
    if slots.trial is None:
        return slots
    # The process that counted the final attempt has ended without confirming the release.
    if slots.attempts >= ATTEMPTS:
        return revert(slots)
    return msgspec.structs.replace(slots, attempts=slots.attempts + 1)


def give_back(slots: Slots) -> Slots:
    """If a release is on trial, do not count its current attempt: a stop on request is no failure of it."""
    if slots.trial is None:
        return slots
    # A stop and the next start would otherwise use up the attempts of a healthy release.
    return msgspec.structs.replace(slots, attempts=max(0, slots.attempts - 1))


def confirm(slots: Slots) -> Slots:
    """End the trial with success: the release on trial becomes the last known good release."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.trial, refused=slots.refused)


def revert(slots: Slots) -> Slots:
    """End the trial with failure: the last known good release returns, and the failed version is never tried again."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.current, refused=max(slots.trial.version, slots.refused))


def judge(*, running_s: float, trial_s: float, healthy: bool) -> Decision:
    """Decide whether a trial passes, fails or goes on, `running_s` seconds after its release was applied."""
    if not healthy:
        return Decision.REVERT
    return Decision.CONFIRM if running_s >= trial_s else Decision.WAIT
