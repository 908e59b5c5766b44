"""Schedules which faults happen, when, and for how long.  The same seed gives the same schedule.  This file is pure.

A *track* is a target of faults, such as the broker.  Faults of one track never overlap, but faults of different tracks
may.  In each round a track goes through all its kinds in a new random order, so that even a short campaign has every
kind.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


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


LINK: frozenset[Kind] = frozenset(
    {Kind.FORGET, Kind.DENY, Kind.SMALL_PACKETS, Kind.CUT, Kind.STALL, Kind.HALF_OPEN, Kind.SLOW}
)
DISK: frozenset[Kind] = frozenset({Kind.DISK_FULL, Kind.SMALL_QUOTA})


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
}
LONGER_S: dict[Kind, float] = {Kind.SMALL_QUOTA: 22.0, Kind.DENY: 4.0, Kind.SMALL_PACKETS: 4.0}
"""These kinds last longer than the plan of their track says, because they take time to have an effect."""


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
