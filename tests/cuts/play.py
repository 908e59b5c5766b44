"""Boots the machines of a history, and cuts their power."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Final

from lab import user_mode_linux
from tests.cuts.plan import CUTS_A_HISTORY, SCENARIOS, Boot, Scenario, history
from tests.cuts.verdict import Fate, judge
from tests.cuts.world import CutWorld

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_S: Final = 600.0


class Cutter:
    """Kills the machine at the moment that the boot asks for."""

    def __init__(self, boot: Boot, folder: Path) -> None:
        self.done = False
        self._after_s = boot.cut_after_s
        self._mark = folder / ("listening" if boot.early else "capturing")
        self._seen_s: float | None = None

    def watch(self, session: int, _results: Path) -> None:
        if self._after_s is None:
            return
        if self._seen_s is None and self._mark.exists():
            self._seen_s = time.monotonic()
        if self._seen_s is not None and time.monotonic() >= self._seen_s + self._after_s:
            user_mode_linux.kill(session)
            self.done = True


def play(scenario: Scenario, seed: int, cuts: int, folder: Path) -> list[Fate]:
    """Play one history in the new folder `folder`, and return the fate of each boot."""
    world = CutWorld(folder)
    folder.mkdir(parents=True)
    world.make()
    boots = history(scenario, seed, cuts)
    for boot in boots:
        run(world, boot)
    return judge(world, scenario, seed, boots)


def play_all(seed: int, cuts: int, folder: Path) -> Iterator[list[Fate]]:
    """Play histories with `cuts` cuts in each scenario, two machines at a time, and yield the fates of each history.

    The histories of a scenario have the seeds `seed`, `seed` + 1 and so on.
    """
    sizes = [min(CUTS_A_HISTORY, cuts - done) for done in range(0, cuts, CUTS_A_HISTORY)]
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(play, scenario, seed + number, size, folder / f"{scenario.replace(' ', '-')}-{seed + number}")
            for number, size in enumerate(sizes)
            for scenario in SCENARIOS
        ]
        for future in as_completed(futures):
            yield future.result()


def run(world: CutWorld, boot: Boot) -> None:
    folder = world.boot_folder(boot.number)
    folder.mkdir()
    cutter = Cutter(boot, folder)
    outcome = user_mode_linux.run(
        [sys.executable, "-m", "tests.cuts.boot", str(world.folder), json.dumps(asdict(boot))],
        folder=ROOT,
        environment={"PYTHONPATH": str(ROOT)},
        timeout_s=TIMEOUT_S,
        watch=cutter.watch,
        storage=world.storage,
    )
    expected = (None, True) if boot.cut_after_s is not None else (0, False)
    assert (outcome.status, cutter.done) == expected, f"{boot}: {outcome.output}\n{outcome.console[-2_000:]}"
