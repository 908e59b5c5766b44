"""Drives a store on the platter, cuts the power at random moments from a seed, and checks what is left."""

import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.system import durable
from tests.powercut.platter import FOLDER, Forgets, Model, Platter, lay_out
from tests.powercut.sqlite_vfs import recording
from tests.powercut.stores import STORES

CUTS_A_DRIVE = 25
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Violation:
    store: str
    seed: int
    cut: int
    what: str


def cut_drive(store: str, seed: int, cuts: int, forgets: Forgets = lambda _kind, _path: False) -> list[Violation]:
    """Drive a store once from `seed`, cut the power at `cuts` moments, and return the violations."""
    chance = random.Random(f"{store} {seed}")
    drive, check = STORES[store]
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        root, left = Path(name) / "live", Path(name) / "left"
        folders = [root, root / "state", root / "receiver", root / "receiver" / "quarantine"]
        for folder in folders:
            folder.mkdir()
        platter = Platter(root, forgets)
        promises: list[tuple[int, Any]] = []
        with durable.on(platter), recording(platter):
            drive(root, chance, lambda state: promises.append((len(platter.operations), state)))
        model, done = Model(), 0
        model.names |= dict.fromkeys(folders, FOLDER)
        model.durable |= dict.fromkeys(folders[1:], FOLDER)
        found: list[Violation] = []
        for number, moment in enumerate(sorted(chance.randrange(len(platter.operations) + 1) for _ in range(cuts))):
            for operation in platter.operations[done:moment]:
                operation(model)
            done = moment
            lay_out(model.cut(chance), root, left)
            before = next((state for at, state in reversed(promises) if at <= moment), None)
            after = next((state for at, state in promises if at > moment), None)
            try:
                check(left, before, after)
            except Exception as error:  # noqa: BLE001  # any error means that the store did not recover
                found.append(Violation(store, seed, number, f"{type(error).__name__}: {error}"))
            shutil.rmtree(left)
    return found
