"""Describes a staged roll-out: its plan, and how far it has come.  Pure.

    RUNNING --(the last stage was held)--> DONE
     |  ^ \
     |  |  `--(too many failures)--------> STOPPED   the earlier contents are published again
     v  |  .--(too many failures)--------> STOPPED
    PAUSED

    RUNNING, PAUSED, DONE --(`fleet rollout back`)--> BACK   the earlier contents are published again

Invariant: `published` says whether the repository has what the phase and the stage want.  A change is first recorded
with `published` false, then published, and then recorded with `published` true.  A process that was killed in between
therefore publishes again, which changes nothing if the repository has it already.
"""

import re
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec

from agent.errors import Permanent
from fleet.publishing.staged import WHOLE, Earlier

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([smhd])", re.ASCII)
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%?", re.ASCII)
_LIMIT: Final = re.compile(r"failures\s*>\s*(.*)", re.ASCII)
STAGES: Final = 20
"""A roll-out has at most this many stages, because every stage is a new version for every vehicle of the fleet."""


class Phase(StrEnum):
    """The phases of a roll-out.  Their values are stable, because they are stored."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    BACK = "back"
    DONE = "done"

    @property
    def active(self) -> bool:
        """Return whether the roll-out may still change what is published by itself."""
        return self in (Phase.RUNNING, Phase.PAUSED)


class Plan(msgspec.Struct, frozen=True):
    """Holds what the operator has asked for.

    `stages` are shares in percent, in rising order; the last is 100.  Each stage is held for `hold_s` seconds, and
    until `need_percent` of its vehicles have reported.  The roll-out stops if more than `limit_percent` of them fail.
    """

    stages: tuple[float, ...]
    hold_s: float
    limit_percent: float
    need_percent: float


class StageRecord(msgspec.Struct, frozen=True):
    """Holds one stage that was begun: its share, its first version of the targets, and when it was published (Unix).

    The counts are those of the latest look at the receipts, of the vehicles that the stage added.
    """

    percent: float
    version: int
    began_s: float = 0.0
    ended_s: float = 0.0
    vehicles: int = 0
    confirmed: int = 0
    failed: int = 0
    reasons: dict[str, int] = {}


class Rollout(msgspec.Struct, frozen=True):
    """Holds a roll-out as it is stored.

    `documents` maps the own path of each document to the SHA-256 (hex) of its content.  `audience` is the text that
    `fleet publish --audience` takes.  `earlier` are the targets of the documents before the roll-out.  `why` is the
    reason of the latest phase, for people.  `broker` is HOST:PORT of the broker that notifies vehicles, or empty.
    """

    id: str
    plan: Plan
    documents: dict[str, str]
    audience: str
    earlier: tuple[Earlier, ...]
    broker: str
    stages: tuple[StageRecord, ...]
    phase: Phase = Phase.RUNNING
    published: bool = False
    why: str = ""

    @property
    def percent(self) -> float:
        """Return the share of vehicles that should have the new contents now."""
        return 0.0 if self.phase in (Phase.STOPPED, Phase.BACK) else self.stages[-1].percent

    @property
    def next_percent(self) -> float | None:
        """Return the share of the next stage, or None after the last one."""
        return next((percent for percent in self.plan.stages if percent > self.stages[-1].percent), None)

    def with_stage(self, record: StageRecord) -> "Rollout":
        """Return the roll-out with its latest stage replaced by `record`."""
        return msgspec.structs.replace(self, stages=(*self.stages[:-1], record))


def parse_stages(text: str) -> tuple[float, ...]:
    """Read shares in percent, such as `1,10,50,100`.  Raises: Permanent for any other text."""
    stages = tuple(_percent(part.strip(), f"--stages {text}") for part in text.split(","))
    if any(later <= earlier for earlier, later in pairwise(stages)) or stages[0] <= 0 or stages[-1] != WHOLE:
        raise Permanent(
            f"--stages {text}: the shares must rise from above 0 to 100, because each stage contains the one before. "
            "Write for example --stages 1,10,50,100."
        )
    if len(stages) > STAGES:
        raise Permanent(f"--stages {text}: there are {len(stages)} stages, but at most {STAGES} are allowed.")
    return stages


def parse_hold(text: str) -> float:
    """Return the seconds of a time such as `24h`, `30m`, `2d` or `90s`.  Raises: Permanent for any other text."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Permanent(f"--hold {text}: this is not a time; write a number and one of s, m, h, d, for example 24h.")
    return float(found[1]) * _SECONDS[found[2]]


def parse_limit(text: str) -> float:
    """Return 0.5 for `failures>0.5%`.  Raises: Permanent if `text` is not such a limit."""
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise Permanent(f"--stop-if {text}: this is not a condition; write for example --stop-if 'failures>0.5%'.")
    return _percent(found[1].strip(), f"--stop-if {text}")


def parse_need(text: str) -> float:
    """Return 50 for `50%`.  Raises: Permanent for any other text."""
    return _percent(text.strip(), f"--need {text}")


def _percent(text: str, where: str) -> float:
    found = _PERCENT.fullmatch(text)
    if found is None or float(found[1]) > WHOLE:
        raise Permanent(
            f"{where}: {text!r} is not a percentage; write a number from 0 to 100 with at most 4 decimal places."
        )
    return float(found[1])
