"""Decide which release is in force: the release on trial or, without a trial, the last known good release.  Pure.

    commit ---> trial ---(healthy and proven)---> current ---(another one becomes current)---> before
                  |                                   |
                  | unhealthy, unproven, or too many  | too many crashes soon after a start
                  | crashes or power cuts             |
                  v                                   v
               refused, and `current` is           refused, and `before` is in force again;
               in force again                      if there is none, no release is in force

Invariant: only a release that has passed its trial returns, and a release that was refused never does.

A rule may wait for a date, and a campaign for a rare signal, so a release can pass its trial and crash the agent weeks
later.  This is why crashes count after the trial, too.

A trial lasts for trial_s.  If the release touches what could not be tried yet, because the car is offline or its buses
sleep, the trial goes on until the evidence is there (`health`), for EVIDENCE_S at most.

A start is recorded just before the release is applied, so the next start knows that this one has ended, even if the
release killed the agent at once:

    the previous start                   how it ended                                       counts as
    -----------------------------------  -------------------------------------------------  -----------
    was closed                           the agent was stopped on request, or ran steadily  nothing
    is open, in this boot                the agent died, or the watchdog ended it           a crash
    is open, in an earlier boot          the machine went down, mostly by a power cut       a power cut
    is open, and a boot id is missing    in one of the two ways above                       a crash
"""

from enum import Enum, auto
from typing import Final

import msgspec

from agent.pushes.health import ANSWER, LINK, Health

CRASHES: Final = 3
"""The number of crashes that end a trial.  Two of them may have another cause, such as a lack of memory."""
POWER_CUTS: Final = 10
"""The number of power cuts that end a trial.

One power cut says nothing about a release, because vehicles lose power for many reasons.  Ten power cuts in one trial,
which lasts half a minute, point to the release: an app that reacts to a toggle may take the whole head unit down.
After the trial, power cuts do not count, because a car may make only short trips, and each ends with a power cut.  For
the same reason, earlier power cuts are forgotten once the agent has run for trial_s while the trial waits for evidence.
"""
EVIDENCE_S: Final = 86_400.0
"""A trial waits this long in one start for frames and for the broker.

In a day of driving, a car comes to a place with a network.  If the broker was not reached, a release that touches the
link is taken back, because only the link can bring a remedy, and so is a sealing key to which no batch was accepted.  A
release that lacks only frames is kept: buses that sleep lose nothing, and crashes are counted later, too.
"""
LATER_CRASHES: Final = 5
"""The number of crashes that take a release back after its trial.

The number is larger than in the trial, because the release did work once.

A hang counts after 30 s (WatchdogSec of the service), so five of them take less than three minutes.
"""
STEADY_S: Final = 600.0
"""After the trial, a start counts as good once the agent has run this long, and earlier crashes are forgotten.

In ten minutes the agent can fetch a corrected release, so it need not take the present one back.
"""


class Ref(msgspec.Struct, frozen=True):
    """Names a stored release by its version of targets and the SHA-256 (hex) of its file.

    `large` has the SHA-256 (hex) of the packed file of each of its large documents.
    """

    version: int
    digest: str
    large: tuple[str, ...] = ()


class Slots(msgspec.Struct, frozen=True):
    """Names the releases that are kept.

    `current` is the last known good release, `before` is the last known good release before that, and `trial` is the
    release on trial.
    `crashes` and `power_cuts` count how the starts with the release in force ended.  `open_in` is the boot id of the
    start that has not been closed.  None means that no start is open.  An empty text means that the boot id is unknown.
    `refused` is the newest version of targets that was trusted but unusable, or that was taken back; 0 means none.
    """

    current: Ref | None = None
    before: Ref | None = None
    trial: Ref | None = None
    crashes: int = 0
    power_cuts: int = 0
    open_in: str | None = None
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


def commit(slots: Slots, ref: Ref, boot: str) -> Slots:
    """Put a verified release on trial, in a start of this `boot`.  A release that is on trial already is replaced."""
    # `current` stays, because the agent must never return to a release that has not passed its trial.
    return Slots(current=slots.current, before=slots.before, trial=ref, open_in=boot, refused=slots.refused)


def refuse(slots: Slots, version: int) -> Slots:
    """Record that a trusted version is unusable.  The release in force stays."""
    return msgspec.structs.replace(slots, refused=max(version, slots.refused))


def ended(slots: Slots, boot: str) -> Slots:
    """Count how the previous start ended, as a new start in the boot `boot` sees it, and close that start."""
    if slots.open_in is None:
        return slots
    power_cut = boot and slots.open_in and boot != slots.open_in
    return msgspec.structs.replace(
        slots,
        crashes=slots.crashes + (0 if power_cut else 1),
        power_cuts=slots.power_cuts + (1 if power_cut else 0),
        open_in=None,
    )


def restart(slots: Slots, boot: str) -> Slots:
    """Open a new start of the release in force; after too many crashes or power cuts, this is the earlier release."""
    slots = ended(slots, boot)
    if slots.trial is None and slots.crashes >= LATER_CRASHES:
        slots = fall_back(slots)
    elif slots.trial is not None and (slots.crashes >= CRASHES or slots.power_cuts >= POWER_CUTS):
        slots = revert(slots)
    return slots if slots.in_force is None else msgspec.structs.replace(slots, open_in=boot)


def close(slots: Slots) -> Slots:
    """Close the present start, if any, because a stop on request is not a failure of the release."""
    return msgspec.structs.replace(slots, open_in=None)


def steady(slots: Slots) -> Slots:
    """Close the present start as good, and forget earlier crashes, unless a release is on trial."""
    if slots.trial is not None:
        return slots
    return Slots(current=slots.current, before=slots.before, refused=slots.refused)


def endured(slots: Slots) -> Slots:
    """Forget the power cuts of a trial that goes on, because the agent has run for as long as a trial lasts."""
    return slots if slots.trial is None else msgspec.structs.replace(slots, power_cuts=0)


def confirm(slots: Slots) -> Slots:
    """End the trial with success: the release on trial becomes the last known good release."""
    if slots.trial is None:
        return slots
    # A release whose file was damaged is tried again, and is then `current` already.
    before = slots.before if slots.trial == slots.current else slots.current
    return Slots(current=slots.trial, before=before, open_in=slots.open_in, refused=slots.refused)


def revert(slots: Slots) -> Slots:
    """End the trial as failed: the last known good release returns, and the failed version is never tried again."""
    if slots.trial is None:
        return slots
    return _without(slots, slots.trial, current=slots.current, before=slots.before)


def fall_back(slots: Slots) -> Slots:
    """Take back the release that has passed its trial: the one before returns, or none if there is no other."""
    if slots.trial is not None or slots.current is None:
        return slots
    return _without(slots, slots.current, current=slots.before, before=None)


def _without(slots: Slots, given_up: Ref, *, current: Ref | None, before: Ref | None) -> Slots:
    open_in = None if current is None else slots.open_in
    return Slots(current=current, before=before, open_in=open_in, refused=max(given_up.version, slots.refused))


def judge(*, running_s: float, trial_s: float, health: Health) -> Decision:
    """Decide whether a trial passes, fails or goes on, `running_s` seconds after its release was applied."""
    if health.breach is not None:
        return Decision.REVERT
    if running_s < trial_s or (health.missing and running_s < EVIDENCE_S):
        return Decision.WAIT
    return Decision.REVERT if {LINK, ANSWER} & set(health.missing) else Decision.CONFIRM
