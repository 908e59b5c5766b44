"""Test the ages of batches over random histories of boots, clocks that are set, wrong or stepped, and restarts.

The oracle knows the true time, which the spool never sees.  The spool sees CLOCK_BOOTTIME, the boot id, and a wall
clock with the error and the quality that the history gives it.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.losses import Reason
from agent.telemetry.spool.boot_records import UNTIL_STEP_US
from tests.agent.telemetry.spool.store import Draft, Store

MINUTE, DAY, YEAR = 60, 86_400, 365 * 86_400
LIMIT_S = 30 * DAY
BORN_S = 1_800_000_000
MEMORY = Path("/dev/shm")
BATCH = Draft(Lane.LIVE, 0, "city", lambda _seq: b"sealed", samples=1)


@dataclass
class Boot:
    """One true boot: when it began, and what the spool could learn about it."""

    began_s: int
    until_s: int = 0  # how long it had run at its last append
    dated: bool = False  # an append saw a trusted and right clock
    doubtful: bool = False  # an append saw a trusted and wrong clock


class World:
    """A vehicle in true time, and its spool."""

    def __init__(self, folder: Path, *, tells_boots: bool = True) -> None:
        self.folder = folder
        self.tells_boots = tells_boots
        self.now_s = BORN_S
        self.boots = [Boot(BORN_S - 20)]
        self.error_s = -BORN_S
        self.trusted = False
        self.stored: dict[int, tuple[int, int]] = {}  # the true time and the boot of each batch
        self.spool = self.open()

    def open(self) -> Store:
        return Store.open(self.folder, quota_bytes=10**9, max_age_s=LIMIT_S, reserve_bytes=0, clock=self.read)

    def read(self) -> Clock:
        place = len(self.boots) - 1
        return Clock(
            ClockQuality.NETWORK if self.trusted else ClockQuality.UNSYNCHRONISED,
            f"boot {place}" if self.tells_boots else "",
            (self.now_s + self.error_s) * 1_000_000,
            (self.now_s - self.boots[-1].began_s) * 1_000_000,
        )

    # ---- what happens

    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    def restart(self) -> None:
        self.spool.close()
        self.spool = self.open()

    def reboot(self, off_s: int, error_s: int) -> None:
        self.spool.close()
        self.now_s += off_s
        self.boots.append(Boot(self.now_s))
        self.now_s += 20
        self.error_s, self.trusted = error_s, False
        self.spool = self.open()

    def set_clock(self) -> None:
        self.error_s, self.trusted = 0, True

    def step(self, error_s: int) -> None:
        # A clock that is trusted and wrong from the start is believed, so it steps only after it was seen to be right.
        if not self.trusted or self.boots[-1].dated:
            self.error_s = error_s

    def append(self) -> None:
        boot = self.boots[-1]
        boot.until_s = self.now_s - boot.began_s
        boot.dated |= self.trusted and self.error_s == 0
        boot.doubtful |= self.trusted and self.error_s != 0
        self.stored[self.spool.append(BATCH)] = self.now_s, len(self.boots) - 1
        self.check()

    # ---- the oracle

    def check(self) -> None:
        here = {entry.seq for entry in self.spool.pending(10**6, exclude=(), lanes=(Lane.LIVE,))}
        for seq, (at_s, place) in self.stored.items():
            age_s = self.now_s - at_s
            if seq not in here:
                assert age_s > LIMIT_S, f"batch {seq} was evicted {age_s / DAY:.2f} days old"
            elif self.tells_boots:
                assert self.counted_s(at_s, place) <= LIMIT_S, f"batch {seq} is kept {age_s / DAY:.2f} days old"
        lost = self.spool.counts().lost
        assert lost.keys() <= {Reason.EVICTED_AGE}
        assert sum(total.batches for total in lost.values()) == len(self.stored) - len(here)

    def counted_s(self, at_s: int, place: int) -> float:
        """Return the age that must be counted at least: all time between two dated boots, and the time switched on."""
        stored, present = self.boots[place], self.boots[-1]
        exact = all(boot.dated and not boot.doubtful for boot in (stored, present))
        if exact or stored is present:
            return self.now_s - at_s
        between = self.boots[place + 1 :]
        missed_s = UNTIL_STEP_US / 1e6 * len(between)
        return stored.until_s - (at_s - stored.began_s) + sum(boot.until_s for boot in between) - missed_s


def play(history: Iterable[tuple[Any, ...]], *, tells_boots: bool = True) -> World:
    with tempfile.TemporaryDirectory(prefix="spool-ages-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(Path(folder) / "spool", tells_boots=tells_boots)
        try:
            for action, *arguments in history:
                getattr(world, action)(*arguments)
            world.append()
        finally:
            world.spool.close()
    return world


SPANS = st.sampled_from([MINUTE, 4 * DAY, 12 * DAY, 31 * DAY, 2 * YEAR])
ERRORS = st.sampled_from([-BORN_S, -YEAR, -10 * DAY, 0, 10 * DAY, YEAR])
# Each drive begins with a boot.  An append follows each step, and most drives begin with one.
STEPS = st.one_of(
    st.tuples(st.just("wait"), SPANS),
    st.tuples(st.just("step"), ERRORS),
    st.just(("set_clock",)),
    st.just(("restart",)),
)
DRIVES = st.tuples(st.tuples(st.just("reboot"), SPANS, ERRORS), st.lists(STEPS, max_size=4), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(DRIVES, min_size=1, max_size=6), st.integers(0, 3))
@example(
    [
        (("reboot", MINUTE, -BORN_S), [("set_clock",)], 0),
        (("reboot", 12 * DAY, -BORN_S), [("set_clock",), ("wait", 4 * DAY), ("step", -BORN_S)], 0),
        (("reboot", 4 * DAY, -BORN_S), [], 0),
        (("reboot", 12 * DAY, -BORN_S), [("set_clock",)], 0),
    ],
    1,
)
@example([(("reboot", 60, 0), [("set_clock",)], 0), (("reboot", 31 * DAY, 0), [("wait", 60)], 0)] * 2, 0)
def test_no_batch_is_evicted_for_age_before_its_true_age_and_none_is_kept_once_the_clocks_tell_it(
    drives: list[tuple[tuple[Any, ...], list[tuple[Any, ...]], int]], tells_boots: int
) -> None:
    history: list[tuple[Any, ...]] = []
    for boot, steps, first in drives:
        history += [boot, *([("append",)] if first else [])]
        for step in steps:
            history += [step, ("append",)]
    play(history, tells_boots=tells_boots > 0)
