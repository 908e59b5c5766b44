"""Which release is in force: trial first, then current, or back to the last known good.  Pure.

    commit ---> trial ---(healthy for trial_s)---> current
                  |
                  +--(unhealthy, or started too often without getting there)---> the release before, for good

Invariant: `current` has proved itself, and only a release that has not yet done so is ever given up.  An attempt is
counted just before the release is applied, so one that kills the agent at once runs out of attempts; a clean stop gives
it back, so only crashes count.
"""

from enum import Enum, auto
from typing import Final

import msgspec

ATTEMPTS: Final = 3  # a car that loses its power in the middle of a trial has done nothing wrong, twice


class Ref(msgspec.Struct, frozen=True):
    """A stored release: its version of targets, and the SHA-256 (hex) of its file."""

    version: int
    digest: str


class Slots(msgspec.Struct, frozen=True):
    """What is in force.  `refused` is the newest version of targets that was trusted and yet given up; 0: none."""

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
        """Versions that need not be offered again."""
        applied = () if self.in_force is None else (self.in_force.version,)
        return applied if self.refused == 0 else (*applied, self.refused)


class Decision(Enum):
    """What to do about a trial now."""

    WAIT = auto()
    CONFIRM = auto()
    REVERT = auto()


def commit(slots: Slots, ref: Ref) -> Slots:
    """A verified and valid release goes on trial; this is its first attempt.  A trial that ran gives way to it."""
    return Slots(current=slots.current, trial=ref, attempts=1, refused=slots.refused)


def refuse(slots: Slots, version: int) -> Slots:
    """A trusted version is not usable: what is in force stays."""
    return msgspec.structs.replace(slots, refused=max(version, slots.refused))


def restart(slots: Slots) -> Slots:
    """A new process or rebuilt parts are about to apply the release: one more attempt, or the end of the trial."""
    if slots.trial is None:
        return slots
    if slots.attempts >= ATTEMPTS:
        return revert(slots)
    return msgspec.structs.replace(slots, attempts=slots.attempts + 1)


def give_back(slots: Slots) -> Slots:
    """The agent stopped as it was told to: the attempt under way says nothing about the trial."""
    if slots.trial is None:
        return slots
    return msgspec.structs.replace(slots, attempts=max(0, slots.attempts - 1))


def confirm(slots: Slots) -> Slots:
    """The trial did well: it is the last known good from now on."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.trial, refused=slots.refused)


def revert(slots: Slots) -> Slots:
    """The trial did harm: back to the last known good, and that version is never tried again."""
    if slots.trial is None:
        return slots
    return Slots(current=slots.current, refused=max(slots.trial.version, slots.refused))


def judge(*, running_s: float, trial_s: float, healthy: bool) -> Decision:
    """What to do about a trial that has run for `running_s` since it was applied."""
    if not healthy:
        return Decision.REVERT
    return Decision.CONFIRM if running_s >= trial_s else Decision.WAIT
