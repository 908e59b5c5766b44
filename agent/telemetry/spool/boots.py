"""Computes how long ago a batch was stored, in time that certainly passed.  This file is pure.

Each batch is stored with the boot of the machine and the reading of CLOCK_BOOTTIME.  Only two facts let time pass:

 1. CLOCK_BOOTTIME, which no program can set.  It measures the time within a boot.  The present boot counts up
    to now.  An earlier boot counts up to the last reading that was stored.
 2. The wall clock, between two boots, if it was trusted in both (Clock.is_trusted).  The wall clock minus
    CLOCK_BOOTTIME is the date at which a boot began.  The two dates tell how much time passed between the two
    beginnings, even if the clock was not set for the first part of a boot.

Where neither fact applies, no time passes.  A vehicle whose clock is never trusted counts the time that it was switched
on, and not the time that it was off.  The computed age is therefore never above the true age.  It is the true age if
the clock was trusted in the boot that stored the batch and in the present boot.

The other readings of the wall clock are not used: not the date of an image (1970, for example), not a plausible date of
a clock with a battery, and no step before the clock was trusted.  If a trusted clock steps within a boot, the two dates
of the beginning contradict each other.  Both are kept (`earliest_us` and `latest_us`), and the one that lets less time
pass counts.  A clock that is trusted and wrong for the whole boot is believed; a clock that goes back between two boots
lets no time pass.

Example, with the boots in a row and the gaps while the machine was off:

    ├── boot 1 ──┤  off  ├── boot 2 ──┤  off  ├── boot 3 ──>
     date trusted         clock not set        date trusted

A batch of boot 1 has the age that the two dates tell.  A batch of boot 2 has the age that CLOCK_BOOTTIME tells: the
rest of boot 2, and boot 3 so far.  The time off between the two is unknown, so none of it counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.formats.up.columns import Clock


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of the machine in which batches were stored; a later boot has a larger `number`.

    `until_us` is the last reading of CLOCK_BOOTTIME that was kept.  The boot began between `earliest_us` and
    `latest_us` (Unix epoch) of the trusted wall clock.  Both are None as long as the clock was never trusted.
    """

    number: int
    boot_id: str
    until_us: int
    earliest_us: int | None = None
    latest_us: int | None = None


class Moment(NamedTuple):
    """The time at which a batch is stored: the number of the boot, CLOCK_BOOTTIME, and the wall clock as it stands."""

    boot: int
    boottime_us: int
    wall_us: int


def observe(boots: Sequence[Boot], now: Clock) -> tuple[Boot, ...]:
    """Return `boots` with what the reading `now` adds.  The last of the returned boots is the present boot.

    If CLOCK_BOOTTIME went back, a new boot has begun, even if the boot id is the same.  If the machine has no boot id
    (the text is empty), two of its boots may count as one.  A boot without an id gets no date, so only the time during
    which the machine was on counts.
    """
    if boots and boots[-1].boot_id == now.boot_id and boots[-1].until_us <= now.boottime_us:
        *earlier, present = boots
        present = replace(present, until_us=now.boottime_us)
    else:
        earlier = list(boots)
        present = Boot(boots[-1].number + 1 if boots else 1, now.boot_id, now.boottime_us)
    if now.is_trusted and now.boot_id:
        began_us = now.wall_us - now.boottime_us
        earliest_us = began_us if present.earliest_us is None else min(began_us, present.earliest_us)
        latest_us = began_us if present.latest_us is None else max(began_us, present.latest_us)
        present = replace(present, earliest_us=earliest_us, latest_us=latest_us)
    return *earlier, present


def distances_us(boots: Sequence[Boot]) -> list[int]:
    """Return how long before the last boot each boot began, at least.

    Each distance is right or too short.  It is right if both boots have a date without a contradiction, whatever the
    boots between them say.
    """
    found: list[int] = []
    since_us = 0
    last_us: int | None = None  # a date at or after which the last boot began
    for boot in reversed(boots):
        # Time passes by the readings of CLOCK_BOOTTIME, or by the dates of this boot and any later one.
        since_us = since_us + boot.until_us if found else 0
        if boot.latest_us is not None and last_us is not None:
            since_us = max(since_us, last_us - boot.latest_us)
        if boot.earliest_us is not None:
            begun_us = boot.earliest_us + since_us
            last_us = begun_us if last_us is None else max(last_us, begun_us)
        found.append(since_us)
    return found[::-1]


def over_age(boots: Sequence[Boot], max_age_us: int) -> Iterator[tuple[int, int]]:
    """Return the numbers of the boots that have batches over the age limit, the oldest boot first.

    Each number comes with a reading of CLOCK_BOOTTIME: batches that were stored before it are over age.  The last
    item of the argument `boots` must be the present boot, with the time that it has lasted up to now.
    """
    for boot, distance_us in zip(boots, distances_us(boots), strict=True):
        over_us = distance_us + boots[-1].until_us - max_age_us
        if over_us <= 0:
            return
        yield boot.number, over_us
