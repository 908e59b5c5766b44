"""Draws histories of boots, cuts and clocks from a seed."""

import random
import time
from dataclasses import dataclass
from typing import Final, Literal

Scenario = Literal["power cut", "unset clock"]
SCENARIOS: Final[tuple[Scenario, ...]] = ("power cut", "unset clock")

CUTS_A_HISTORY: Final = 5
"""So many cuts go before the boot that delivers everything, which takes as long as three cuts."""

DAY_S: Final = 86_400


@dataclass(frozen=True)
class Boot:
    """One boot of the machine.  The boots of a history have the numbers 1, 2, 3 and so on.

    `clock_s` is what the wall clock shows at boot, in seconds since 1970, or None if it is right.  The clock is set
    right `set_after_s` seconds after the agent first captures, or never if this is None.

    The power is cut `cut_after_s` seconds after the agent first captures.  If `early`, these seconds count from the
    moment when the kernel keeps the first frames for the starting agent.  If `cut_after_s` is None, the boot is the
    last one, which delivers everything.
    """

    number: int
    clock_s: float | None = None
    set_after_s: float | None = None
    cut_after_s: float | None = None
    early: bool = False

    @property
    def clock_text(self) -> str:
        if self.clock_s is None:
            return "right"
        shows = time.strftime("%Y-%m-%d", time.gmtime(self.clock_s))
        return shows if self.set_after_s is None else f"{shows}, set after {self.set_after_s:.1f} s"

    @property
    def cut_text(self) -> str:
        if self.cut_after_s is None:
            return "none"
        return f"{self.cut_after_s:.1f} s after the {'start' if self.early else 'first capture'}"


def history(scenario: Scenario, seed: int, cuts: int) -> list[Boot]:
    """Return boots with `cuts` cuts, and the boot that delivers."""
    chance = random.Random(f"{scenario} {seed}")
    draw = _power_cut if scenario == "power cut" else _unset_clock
    return [*(draw(number, chance) for number in range(1, cuts + 1)), Boot(cuts + 1)]


def _power_cut(number: int, chance: random.Random) -> Boot:
    """Draw a cut.  After the first one, the clock may be wrong.  There is no network until the last boot."""
    clock_s = chance.choice([None, _unset(chance)])
    # Before the first agent has begun to collect, a spool is empty, and a cut is no different from a car that was off.
    early = number > 1 and chance.random() < 0.25
    return Boot(number, None if number == 1 else clock_s, cut_after_s=chance.uniform(0, 6), early=early)


def _unset_clock(number: int, chance: random.Random) -> Boot:
    """Draw a cut of a boot whose clock is not set, and in most boots is set later.  Again there is no network."""
    clock_s, set_after_s = _unset(chance), chance.uniform(0, 5)
    is_set = number == 1 or chance.random() < 0.75
    cut_after_s = chance.uniform(0, 6) + (set_after_s if is_set else 0)
    return Boot(number, clock_s, set_after_s if is_set else None, cut_after_s)


def _unset(chance: random.Random) -> float:
    """Return what a clock without a battery shows: a time in 1970, or when the image of the system was built.

    systemd moves a clock of 1970 to the time when systemd was built.
    """
    return chance.choice([chance.uniform(60, DAY_S), _built_s(chance)])


def _built_s(chance: random.Random) -> float:
    return time.time() - chance.uniform(40, 600) * DAY_S
