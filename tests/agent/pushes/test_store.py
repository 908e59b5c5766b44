"""The store of pushes survives power cuts.  A cut is an exception at a durable write, before the store is reopened."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.errors import Permanent, Transient
from agent.formats.down.bundle import Versions
from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.store import Store
from agent.pushes.trial import Slots, commit, confirm
from agent.system.durable import write_file


class Cut(BaseException):
    """Simulates a power cut at a durable write."""


def push(store: Store, version: int) -> None:
    ref = store.add_release(Release(version, {"toggles.json": b"{%d}" % version, "campaigns/drive.json": b"{}"}))
    record = msgspec.structs.replace(
        store.record,
        floor=Versions(1, version, version, version),
        metadata={"timestamp.json": b"%d" % version},
        slots=confirm(commit(store.record.slots, ref, "boot")),
    )
    store.commit(record)


def in_force(store: Store) -> int:
    ref = store.record.slots.in_force
    release = None if ref is None else store.release(ref)
    return 0 if release is None else release.version


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    push(store, 5)
    again = Store.open(tmp_path)
    assert (again.record, in_force(again), again.damaged) == (store.record, 5, False)


@pytest.mark.parametrize("torn", [lambda content: content, lambda content: b"", lambda content: content[:-9]])
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("before", [True, False])
def test_a_cut_at_any_write_leaves_the_push_before_or_the_push_after_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, before: bool, torn: Callable[[bytes], bytes]
) -> None:
    store = Store.open(tmp_path)
    push(store, 5)
    written: list[Path] = []

    def write_until_the_cut(path: Path, content: bytes) -> None:
        if len(written) == at:
            if not before:
                path.write_bytes(torn(content))  # a power cut may keep a rename and lose the data
            raise Cut
        written.append(path)
        write_file(path, content)

    monkeypatch.setattr("agent.pushes.store.write_file", write_until_the_cut)
    with pytest.raises(Cut):
        push(store, 6)
    monkeypatch.undo()
    after = Store.open(tmp_path)
    assert in_force(after) in (5, 6)
    assert after.record.floor.targets == in_force(after)
    if at == 2:
        assert in_force(after) == 6  # the first of two copies was durable
    push(after, 7)
    assert in_force(Store.open(tmp_path)) == 7


@pytest.mark.parametrize("name", ["state.a", "state.b"])
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"{}\n{}"])
def test_one_damaged_copy_of_the_record_costs_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    store = Store.open(tmp_path)
    push(store, 5)
    (tmp_path / name).write_bytes(content)
    again = Store.open(tmp_path)
    assert again.record == store.record
    push(again, 6)
    assert in_force(Store.open(tmp_path)) == 6


def test_with_every_file_emptied_the_floor_of_targets_still_stands(tmp_path: Path) -> None:
    push(Store.open(tmp_path), 5)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    store = Store.open(tmp_path)
    assert store.damaged
    assert store.record == Record(floor=Versions(targets=5))


def test_a_damaged_release_is_not_given_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ref = store.add_release(Release(5, {}))
    file = next((tmp_path / "releases").iterdir())
    file.write_bytes(file.read_bytes().replace(b"5", b"6"))
    assert store.release(ref) is None


def test_releases_that_nobody_needs_are_removed(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for version in range(1, 9):
        push(store, version)
    # The release before the last known good one stays, because crashes lead back to it.
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "releases").iterdir()) == ["7", "8"]


def test_a_full_disk_is_transient_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path)
    push(store, 5)
    before = store.record

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.pushes.store.write_file", full)
    with pytest.raises(Transient, match="No space left"):
        push(store, 6)
    assert store.record == before
    monkeypatch.undo()
    assert in_force(Store.open(tmp_path)) == 5


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "pushes").write_bytes(b"")
    with pytest.raises(Permanent, match="pushes"):
        Store.open(tmp_path / "pushes")


def test_slots_survive_the_round_trip(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ref = store.add_release(Release(5, {}))
    slots = commit(Slots(refused=4), ref, "boot")
    store.commit(Record(slots=slots, time_s=9))
    assert Store.open(tmp_path).record == Record(generation=1, slots=slots, time_s=9)
