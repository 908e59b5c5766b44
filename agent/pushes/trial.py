"""Decides which release is in force: the release on trial, or without a trial the last proven release.  Pure.

    commit ---> trial ---(healthy for trial_s)---> current
                  |
                  +--(unhealthy, or too many starts without success)---> the release before, for good

Invariant: `current` has passed its trial, and only a release that has not passed its trial is given up.

An attempt is counted just before the release is applied, so a release that kills the agent at once runs out of
attempts.  A clean stop gives the attempt back, so only crashes count.
"""

from enum import Enum, auto
from typing import Final

import msgspec

ATTEMPTS: Final = 3
"""How many starts a release on trial may take; two may end because the vehicle lost its power, which proves nothing."""


class Ref(msgspec.Struct, frozen=True):
    """A stored release: its version of targets, and the SHA-256 (hex) of its file."""

    version: int
    digest: str


class Slots(msgspec.Struct, frozen=True):
    """The releases that are kept.

    `attempts` counts starts with the release on trial.  `refused` is the newest version of targets that was
    verified but failed its trial; 0 means none.
    """

    current: Ref | None = None
    trial: Ref | None = None
    attempts: int = 0
    refused: int = 0

    @property
    def in_force(self) -> Ref | None:
        """The release to apply."""
        return self.trial or self.current

    @property
    def settled(self) -> tuple[int, ...]:
        """The versions that need not be offered again."""
        applied = () if self.in_force is None else (self.in_force.version,)
        return applied if self.refused == 0 else (*applied, self.refused)


class Decision(Enum):
    """A decision about a running trial."""

    WAIT = auto()
    CONFIRM = auto()
    REVERT = auto()


def commit(slots: Slots, ref: Ref) -> Slots:
    """Put a verified and valid release on trial, with its first attempt; it takes the place of one on trial."""
    # A release on trial that has not proved itself is not a state to go back to.
    return Slots(current=slots.current, trial=ref, attempts=1, refused=slots.refused)


def refuse(slots: Slots, version: int) -> Slots:
    """Record that a trusted version is not usable; what is in force stays."""
    return msgspec.structs.replace(slots, refused=max(version, slots.refused))


def restart(slots: Slots) -> Slots:
    """Count one more attempt, because the release is about to be applied again; after the last one, end the trial."""
    if slots.trial is None:
        return slots
    # The process that counted the last attempt has ended without confirming it.
    if slots.attempts >= ATTEMPTS:
        return revert(slots)
    return msgspec.structs.replace(slots, attempts=slots.attempts + 1)


def give_back(slots: Slots) -> Slots:
    """Take back the attempt under way: the agent stopped on request, which says nothing about the release."""
    if slots.trial is None:
        return slots
    # A stop and the next start would otherwise use up the attempts of a healthy release.
    return msgspec.structs.replace(slots, attempts=max(0, slots.attempts - 1))


def confirm(slots: Slots) -> Slots:
    """End the trial well: the release is the last known good one from now on."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.trial, refused=slots.refused)


def revert(slots: Slots) -> Slots:
    """End the trial badly: the last known good release is in force, and that version is never tried again."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.current, refused=max(slots.trial.version, slots.refused))


def judge(*, running_s: float, trial_s: float, healthy: bool) -> Decision:
    """Decide about a trial that has run for `running_s` since it was applied."""
    if not healthy:
        return Decision.REVERT
    return Decision.CONFIRM if running_s >= trial_s else Decision.WAIT
