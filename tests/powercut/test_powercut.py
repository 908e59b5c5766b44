"""Run a short form of `make powercut`, and seeds that once failed, and test that planted bugs are found."""

import random
from functools import partial
from pathlib import Path

import pytest

from agent.telemetry.spool.listening import ListeningNote
from agent.telemetry.spool.spool import Spool
from tests.powercut.captures import check_captures, drive_captures
from tests.powercut.cuts import cut_drive
from tests.powercut.platter import FOLDER, SECTOR, Inode, Model
from tests.powercut.stores import STORES

FAILED: tuple[tuple[str, int], ...] = (("spool_without_index", 969_553),)
"""Every (store, seed) of a drive that once showed a violation.  None is ever removed."""


@pytest.mark.parametrize("store", STORES)
def test_what_was_reported_durable_is_there_after_a_cut_at_any_moment(store: str) -> None:
    seeds = random.SystemRandom().sample(range(10**6), 4)
    seeds += [seed for failed, seed in FAILED if failed == store]
    assert [violation for seed in seeds for violation in cut_drive(store, seed, 40)] == []


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("store", STORES)
def test_a_sync_that_is_left_out_is_found(store: str, kind: str) -> None:
    assert any(cut_drive(store, seed, 25, lambda synced, _: synced == kind) for seed in range(10))


@pytest.mark.parametrize(
    ("store", "kind", "name"),
    [
        ("spool", "file", ".batch"),
        ("spool", "file", "-wal"),
        ("spool_without_index", "folder", "checkpoints"),
        ("captures", "file", "listening"),
        ("push_store", "file", "state."),
        ("push_store", "folder", "releases"),
        ("large_files", "folder", "large"),
        ("receiver", "file", "receiver.db"),
        ("receiver", "folder", "quarantine"),
    ],
)
def test_a_single_kind_of_sync_that_is_left_out_is_found(store: str, kind: str, name: str) -> None:
    def forgets(synced: str, path: Path) -> bool:
        return synced == kind and name in path.name

    assert any(cut_drive(store, seed, 25, forgets) for seed in range(10))


def test_a_new_ring_that_is_taken_for_that_of_the_run_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def same() -> str:
        return "ring"

    monkeypatch.setitem(STORES, "mistaken", (partial(drive_captures, ids=same), partial(check_captures, ids=same)))
    violations = [violation for seed in range(5) for violation in cut_drive("mistaken", seed, 25)]
    assert any("which the ledger does not name" in violation.what for violation in violations)


def unnamed(seeds: int) -> bool:
    violations = [violation for seed in range(seeds) for violation in cut_drive("captures", seed, 25)]
    return any("which the ledger does not name" in violation.what for violation in violations)


def test_a_start_that_is_not_noted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListeningNote, "add", lambda _self, _rings: None)
    assert unnamed(10)


def test_a_reload_that_does_not_hand_over_its_rings_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    end_run = Spool.end_run
    monkeypatch.setattr(Spool, "end_run", lambda spool, **_: end_run(spool))
    assert unnamed(40)


def left(model: Model, file: Path) -> set[bytes | None]:
    """Return all contents of `file` that a cut can leave, with None for a missing file."""
    return {model.cut(random.Random(seed)).get(file) for seed in range(300)}


def test_the_disk_keeps_what_was_synced_and_any_part_of_the_rest() -> None:
    folder = Path("/f")
    file, other = folder / "a", folder / "b"
    model = Model()
    model.durable[folder] = model.names[folder] = FOLDER
    model.change({file: Inode()})
    model.inode(file).pending.append((0, b"x" * SECTOR + b"y"))
    assert {None, b""} < left(model, file)  # neither name nor content is durable
    model.inode(file).sync()
    assert left(model, file) == {None, b"x" * SECTOR + b"y"}
    model.sync_folder(folder)
    assert left(model, file) == {b"x" * SECTOR + b"y"}
    model.inode(file).pending.append((0, b"z" * (SECTOR + 1)))
    torn = {b"x" * SECTOR + b"z", b"z" * SECTOR + b"y"}
    assert left(model, file) == torn | {b"x" * SECTOR + b"y", b"z" * SECTOR + b"z"}
    model.inode(file).sync()
    model.change({file: None, other: model.names[file]})
    assert left(model, file) == {None, b"z" * (SECTOR + 1)}
