"""Schedules which faults happen, when, and for how long.  The same seed gives the same schedule.  This file is pure.

A *track* is a target of faults, such as the broker.  Faults of one track never overlap, but faults of different tracks
may.  In each round a track goes through all its kinds in a new random order, so that even a short campaign has every
kind.

A campaign is divided into chapters.  Between two chapters, when all programs are down, a disk is put back to an image
that was taken in the middle of the earlier chapter.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Track(StrEnum):
    """A target of faults."""

    AGENT = "agent"
    BROKER = "broker"
    RECEIVER = "receiver"
    VEHICLE_ROAD = "vehicle_road"  # between agent and broker
    RECEIVER_ROAD = "receiver_road"
    VEHICLE_DISK = "vehicle_disk"
    FLEET_DISK = "fleet_disk"
    VEHICLE_CLOCK = "vehicle_clock"
    FLEET_CLOCK = "fleet_clock"
    REGISTRY = "registry"
    HOSTILE = "hostile"  # a second vehicle of the fleet


class Kind(StrEnum):
    """A kind of fault.  The end of a fault restores the state before it."""

    KILL = "kill"  # SIGKILL; the program starts again `lasts_s` later
    SMALL_QUOTA = "small_quota"  # SIGHUP: the agent may store 100 kB and cannot reach its broker
    FORGET = "forget"  # the broker restarts and has lost its sessions and messages
    DENY = "deny"  # the access list forbids telemetry or acknowledgements
    SMALL_PACKETS = "small_packets"  # the broker refuses packets above `amount` bytes
    CUT = "cut"  # connections are reset and new ones are refused
    STALL = "stall"  # connections stay open, but no byte passes
    HALF_OPEN = "half_open"  # the broker's side closes, but the client's side stays open
    SLOW = "slow"  # `amount` bytes a second pass
    DISK_FULL = "disk_full"
    JUMP = "jump"  # the wall clock is `amount` days off
    NOT_ENROLLED = "not_enrolled"  # the registry is as it was before the vehicle's enrolment
    # What the hostile vehicle publishes.  The names are those of tests.attacks.test_hostile_vehicle.ATTACKS.
    ROWS = "rows"
    BOMBS = "bombs"
    CATALOGUES = "catalogues"
    DATES = "dates"
    RUBBISH = "rubbish"
    FORKS = "forks"
    REQUESTS = "requests"


LINK: frozenset[Kind] = frozenset(
    {Kind.FORGET, Kind.DENY, Kind.SMALL_PACKETS, Kind.CUT, Kind.STALL, Kind.HALF_OPEN, Kind.SLOW}
)
DISK: frozenset[Kind] = frozenset({Kind.DISK_FULL, Kind.SMALL_QUOTA})
HOSTILE: Sequence[Kind] = (
    Kind.ROWS,
    Kind.BOMBS,
    Kind.CATALOGUES,
    Kind.DATES,
    Kind.RUBBISH,
    Kind.FORKS,
    Kind.REQUESTS,
)


class Restored(StrEnum):
    """What is put back to an earlier state between two chapters."""

    VEHICLE = "vehicle"  # the folder of the agent's state
    INBOX = "inbox"  # the receiver's database
    LAKE = "lake"
    VEHICLE_AND_INBOX = "vehicle_and_inbox"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that begins `at_s` after the start and lasts `lasts_s`.  Its kind defines the meaning of `amount`."""

    at_s: float
    lasts_s: float
    track: Track
    kind: Kind
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The kinds in one round of a track, and the ranges of the time between two faults and of the length of a fault."""

    kinds: Sequence[Kind]
    gap_s: tuple[float, float]
    lasts_s: tuple[float, float]


PLANS: dict[Track, Plan] = {
    Track.AGENT: Plan((*[Kind.KILL] * 9, Kind.SMALL_QUOTA), (2.0, 11.0), (0.0, 1.5)),
    Track.BROKER: Plan((*[Kind.KILL] * 5, Kind.FORGET, Kind.DENY, Kind.SMALL_PACKETS), (3.0, 9.0), (0.2, 3.0)),
    Track.RECEIVER: Plan((Kind.KILL,), (2.0, 13.0), (0.0, 2.0)),
    Track.VEHICLE_ROAD: Plan((Kind.CUT, Kind.STALL, Kind.HALF_OPEN, Kind.SLOW), (3.0, 15.0), (1.0, 8.0)),
    Track.RECEIVER_ROAD: Plan((Kind.CUT, Kind.STALL, Kind.HALF_OPEN, Kind.SLOW), (5.0, 25.0), (1.0, 6.0)),
    Track.VEHICLE_DISK: Plan((Kind.DISK_FULL,), (10.0, 30.0), (1.0, 6.0)),
    Track.FLEET_DISK: Plan((Kind.DISK_FULL,), (15.0, 40.0), (1.0, 5.0)),
    Track.VEHICLE_CLOCK: Plan((Kind.JUMP,), (5.0, 20.0), (2.0, 15.0)),
    Track.FLEET_CLOCK: Plan((Kind.JUMP,), (10.0, 30.0), (2.0, 15.0)),
    Track.REGISTRY: Plan((Kind.NOT_ENROLLED,), (8.0, 30.0), (1.0, 8.0)),
    Track.HOSTILE: Plan(HOSTILE, (4.0, 20.0), (2.0, 6.0)),
}
LONGER_S: dict[Kind, float] = {Kind.SMALL_QUOTA: 22.0, Kind.DENY: 4.0, Kind.SMALL_PACKETS: 4.0}
"""These kinds last longer than the plan of their track says, because they take time to have an effect."""


CHAPTER_S: Final = 75.0
"""The length of a chapter.  Six minutes then hold every kind of restored disk."""

IMAGE: Final = (0.3, 0.7)
"""An image is taken between these fractions of a chapter, so that much was delivered before and after it."""


FROZEN: Final = 0.75
"""The part of the images for which the program is frozen.  The others find the program killed."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image is taken `at_s`.  Its program is stopped with SIGSTOP if `frozen` is set, and else with SIGKILL.

    A frozen program goes on, and finishes the windows whose checkpoints the image has.  A killed program sends these
    checkpoints itself when it starts again.
    """

    at_s: float
    frozen: bool


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the campaign.  At its end, `restored` is put back to `images`, which are taken on the given tracks."""

    begins_s: float
    ends_s: float
    restored: Restored | None
    images: Mapping[Track, Image]

    def of(self, faults: Sequence[Fault]) -> list[Fault]:
        """Return the faults that begin in this chapter.  A fault that would last longer ends with the chapter."""
        return [
            replace(fault, lasts_s=min(fault.lasts_s, self.ends_s - fault.at_s))
            for fault in faults
            if self.begins_s <= fault.at_s < self.ends_s
        ]


STOPPED: Final[Mapping[Restored, tuple[Track, ...]]] = {
    Restored.VEHICLE: (Track.AGENT,),
    Restored.INBOX: (Track.RECEIVER,),
    Restored.LAKE: (Track.RECEIVER,),
    Restored.VEHICLE_AND_INBOX: (Track.AGENT, Track.RECEIVER),
}
"""The programs that are stopped for an image."""


def chapters(seed: int, seconds: float) -> list[Chapter]:
    """Return the chapters of a campaign, at least two.  Disks are put back in rounds that have every kind once."""
    chance = random.Random(f"{seed} chapters")
    count = max(2, round(seconds / CHAPTER_S))
    length_s = seconds / count
    restored: list[Restored] = []
    while len(restored) < count - 1:
        restored += chance.sample(list(Restored), len(Restored))
    found = []
    for number, kind in enumerate([*restored[: count - 1], None]):
        begins_s = number * length_s
        images = {
            track: Image(begins_s + chance.uniform(*IMAGE) * length_s, frozen=chance.random() < FROZEN)
            for track in (STOPPED[kind] if kind else ())
        }
        found.append(Chapter(begins_s, (number + 1) * length_s, kind, images))
    return found


def faults(seed: int, track: Track, seconds: float) -> list[Fault]:
    """Return the faults of one track in order.  All of them end within the `seconds` of the campaign."""
    return list(_faults(random.Random(f"{seed} {track}"), track, seconds))


def _faults(chance: random.Random, track: Track, seconds: float) -> Iterator[Fault]:
    plan = PLANS[track]
    at_s = 0.0
    while True:
        for kind in chance.sample(plan.kinds, len(plan.kinds)):
            at_s += chance.uniform(*plan.gap_s)
            lasts_s = chance.uniform(*plan.lasts_s) + LONGER_S.get(kind, 0.0)
            amount = _amount(chance, kind)
            if at_s + lasts_s > seconds:
                return
            yield Fault(round(at_s, 3), round(lasts_s, 3), track, kind, amount)
            at_s += lasts_s


def _amount(chance: random.Random, kind: Kind) -> float:
    match kind:
        case Kind.SLOW:
            return float(chance.randrange(2_000, 20_000))
        case Kind.SMALL_PACKETS:
            return float(chance.randrange(1_300, 2_200))
        case Kind.DENY:
            return float(chance.randrange(2))  # 0: telemetry, 1: acknowledgements
        case Kind.JUMP:
            return round(chance.choice((-1.0, 1.0)) * chance.uniform(0.5, 40.0), 3)
        case _:
            return 0.0
