"""Decides from counted receipts whether a stage waits, ends or stops.  Pure.

A stage stops as soon as the failures exceed the limit.  Failures are counted as a share of the vehicles that have
reported.  With a limit of 0.5 %, however, one failure among the first ten reports says little: such a share is taken of
at least 200 vehicles (100 / limit), or of all vehicles of the stage if it has fewer.

    judged are                                    so that
    -----------------------------------------     --------------------------------------------------------
    the vehicles that the latest stage added      many good vehicles of earlier stages do not hide its failures
    all vehicles of all stages                    a failure that comes late in an earlier stage counts as well
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from agent.system.words import counted
from fleet.rollout.plan import Plan


@dataclass(slots=True)
class Tally:
    """Counts vehicles: all, those whose new release passed its trial, and those in which a release failed.

    A vehicle that has failed once counts as failed.  `reasons` counts the failed vehicles by reason.
    """

    vehicles: int = 0
    confirmed: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def reported(self) -> int:
        """Return the number of vehicles whose result is known."""
        return self.confirmed + self.failed


class Verdict(Enum):
    """The possible decisions about a stage."""

    WAIT = auto()
    GO_ON = auto()
    STOP = auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Holds the decision about a stage, and the reason as a sentence."""

    verdict: Verdict
    why: str


def judge(
    plan: Plan, percent: float, added: Tally, everyone: Tally, held_s: float, *, hurry: bool = False
) -> Judgement:
    """Judge the latest stage, which has the share `percent` and was published `held_s` seconds ago.

    `added` counts the vehicles that this stage added, and `everyone` those of all stages.  With `hurry`, the stage ends
    without waiting for time and reports.
    """
    # The reason is shown beside the following stage as well, so it names the stage that it is about.
    stage = f"stage of {percent:g} %"
    for name, tally in ((f"the {stage}", added), ("all stages", everyone)):
        if exceeds(tally, plan.limit_percent):
            return Judgement(
                Verdict.STOP,
                f"In {name}, {tally.failed:,} of {counted(tally.reported, 'vehicle')} that reported failed "
                f"({_reasons(tally.reasons)}), and at most {plan.limit_percent:g} % may.",
            )
    if hurry:
        return Judgement(Verdict.GO_ON, f"The operator ended the {stage}.")
    if held_s < plan.hold_s:
        # A stage without vehicles is held as well: it has tried nothing, and the next one may reach every vehicle.
        none = "" if added.vehicles else " It has added no vehicle; `fleet rollout step --now` ends it."
        return Judgement(Verdict.WAIT, f"The {stage} is held for {math.ceil(plan.hold_s - held_s):,} s more.{none}")
    needed = math.ceil(added.vehicles * plan.need_percent / 100)
    if added.reported < needed:
        return Judgement(
            Verdict.WAIT,
            f"The {stage} needs reports of {needed:,} of its {counted(added.vehicles, 'vehicle')}, "
            f"and has {added.reported:,}.",
        )
    if added.vehicles == 0:
        return Judgement(Verdict.GO_ON, f"The {stage} was held, and has added no vehicle.")
    return Judgement(
        Verdict.GO_ON,
        f"The {stage} was held; {counted(added.confirmed, 'vehicle')} confirmed and {added.failed:,} failed.",
    )


def exceeds(tally: Tally, limit_percent: float) -> bool:
    """Return whether more vehicles have failed than the limit allows."""
    least = tally.vehicles if limit_percent <= 0 else min(tally.vehicles, math.ceil(100 / limit_percent))
    return tally.failed * 100 > limit_percent * max(tally.reported, least)


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
