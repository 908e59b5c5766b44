"""Damaged files and a damaged index cost only what is damaged, and the loss is named."""

import errno
import os
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId
from agent.telemetry.spool.folder import QUARANTINE
from tests.agent.telemetry.spool.flaky import FlakyDisk
from tests.agent.telemetry.spool.rig import (
    Rig,
    batch_files,
    draft,
    drop_table,
    entries,
    stored,
    unaccounted,
)
from tests.agent.telemetry.spool.store import WINDOW, Store


def test_a_flipped_byte_is_never_sent_but_quarantined_and_named(spool: Store, disk: Rig) -> None:
    spool.append(draft(b"abc"))
    (path,) = batch_files(disk.folder)
    path.write_bytes(b"1:abX")
    (entry,) = entries(spool)
    assert spool.read(entry) is None
    assert entries(spool) == []
    ((_, loss),) = spool.unreported_losses(10)
    assert (loss.reason, loss.first_seq, loss.samples) == (Reason.CORRUPT, 1, 3)
    assert [file.read_bytes() for file in (disk.folder / "quarantine").iterdir()] == [b"1:abX"]
    assert unaccounted(spool) == 0


def test_missing_and_cut_files_are_named_at_opening(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([draft(b"abc")] * 4)
    spool.close()
    first, second, *_ = batch_files(disk.folder)
    first.unlink()
    second.write_bytes(b"2:a")
    again = disk.open()
    assert sorted(stored(again)) == [3, 4]
    assert again.counts().lost[Reason.CORRUPT].batches == 2
    assert unaccounted(again) == 0
    again.close()


def test_what_interrupted_writes_left_is_deleted(disk: Rig) -> None:
    spool = disk.open()
    spool.append(draft())
    spool.close()
    (path,) = batch_files(disk.folder)
    (path.parent / f"000000000002.live.0.{'a' * 16}.batch").write_bytes(b"written, never committed")
    again = disk.open()
    assert batch_files(disk.folder) == [path]
    assert again.append(draft()) == 2
    again.close()


class UnsyncedFolder(FlakyDisk):
    """A disk on which the first sync of a folder of batches fails."""

    failed = False

    def sync_folder(self, folder: Path) -> None:
        if folder.parent.name == "batches" and not self.failed:
            self.failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_folder(folder)


def test_a_batch_whose_name_is_not_durable_is_not_stored(disk: Rig) -> None:
    spool = Store.open(disk.folder, quota_bytes=10**6, max_age_s=1e3, reserve_bytes=0, disk=UnsyncedFolder(disk.fault))
    with pytest.raises(Transient):
        spool.append_all([draft(), draft()])
    assert (stored(spool), batch_files(disk.folder)) == ({}, [])
    assert spool.append(draft()) == 1
    spool.close()


def test_quarantine_is_bounded(spool: Store, disk: Rig) -> None:
    for _ in range(QUARANTINE + 5):
        spool.append(draft(b"abc"))
        disk.clock.now_s += 1
        batch_files(disk.folder)[-1].write_bytes(b"damaged")
        assert spool.read(entries(spool)[0]) is None
    kept = sorted(file.name.split(".")[2] for file in (disk.folder / "quarantine").iterdir())
    assert kept == [f"{seq:012d}" for seq in range(6, QUARANTINE + 6)]


@pytest.mark.parametrize("damage", ["garbage", "cut", "gone", "version 0", "version 2"])
def test_a_damaged_index_is_set_aside_its_batches_kept_and_its_loss_named(disk: Disk, damage: str) -> None:
    spool = disk.open()
    spool.append_all([draft(b"a", Lane.EVENTS, 3), draft(b"b")])
    epoch = spool.epoch
    spool.close()
    path = disk.folder / "index.sqlite3"
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(20_000))
        case "cut":
            path.write_bytes(path.read_bytes()[:6_000])
        case "gone":
            path.unlink()
        case "version 0" | "version 2":
            with closing(sqlite3.connect(path)) as database:
                database.execute(f"PRAGMA user_version = {damage.removeprefix('version ')}")
    again = disk.open()
    assert again.epoch != epoch
    assert [(entry.key, entry.lane, entry.priority) for entry in entries(again)] == [
        ((epoch, 1), Lane.EVENTS, 3),
        ((epoch, 2), Lane.LIVE, 0),
    ]
    assert stored(again) == {1: b"1:a", 2: b"2:b"}
    ((_, loss),) = again.unreported_losses(10)
    assert (loss.reason, loss.epoch) == (Reason.INDEX_DAMAGED, epoch)
    assert again.append(draft(b"new")) == 1
    assert again.acknowledge(epoch, [1, 2]) == 2
    assert (again.counts().adopted, unaccounted(again)) == (2, 0)
    assert (disk.folder / "quarantine" / "index.sqlite3").exists() == (damage != "gone")
    again.close()
    disk.open().close()
    assert [folder.name for folder in (disk.folder / "batches").iterdir()] == [again_epoch(disk)]


def test_a_file_that_is_empty_when_the_index_is_lost_is_named(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([draft(b"a"), draft(b"b")])
    spool.close()
    batch_files(disk.folder)[0].write_bytes(b"")
    (disk.folder / "index.sqlite3").unlink()
    again = disk.open()
    assert stored(again) == {2: b"2:b"}
    losses = {loss.reason: loss for _, loss in again.unreported_losses(10)}
    assert (losses[Reason.CORRUPT].epoch, losses[Reason.CORRUPT].first_seq) == (entries(again)[0].epoch, 1)
    assert unaccounted(again) == 0
    again.close()


def again_epoch(disk: Rig) -> str:
    spool = disk.open()
    epoch = spool.epoch
    spool.close()
    return epoch


def test_damage_to_the_index_while_running_is_survived(disk: Disk, spool: Store) -> None:
    spool.append(draft(b"a"))
    epoch = spool.epoch
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.acknowledge(epoch, [1])
    assert spool.epoch != epoch
    assert spool.acknowledge(epoch, [1]) == 1


def test_a_recovery_that_the_disk_interrupts_is_done_again_before_anything_else(disk: Rig) -> None:
    class Unreadable(Disk):
        failures = 0

        def sizes(self, folder: Path) -> dict[str, int]:
            self.failures -= 1
            if self.failures == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().sizes(folder)

    files = Unreadable()
    spool = Store.open(disk.folder, quota_bytes=10**6, max_age_s=1e3, reserve_bytes=0, disk=files)
    spool.append(draft(b"a"))
    epoch = spool.epoch
    drop_table(disk, "totals")
    files.failures = 2  # while the new index adopts the files
    with pytest.raises(Transient, match="Input/output error"):
        spool.counts()
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.append(draft(b"b"))
    assert [entry.key for entry in entries(spool)] == [(epoch, 1)]
    spool.close()


@pytest.mark.parametrize("spoilt", ["resume_points", "reached"])
def test_damage_to_the_index_in_the_middle_of_an_append_doubles_nothing(disk: Rig, spool: Store, spoilt: str) -> None:
    spool.append(replace(draft(b"part"), checkpoint=BatchId(WINDOW, 1)))
    drop_table(disk, spoilt)
    whole = replace(draft(b"whole"), window=WINDOW)
    with pytest.raises(Transient, match="has been rebuilt"):  # the file was written before
        spool.append(whole, token="a", resume_points={"can0": 1})
    assert entries(spool) == []  # the window is in memory, so its checkpoint is not sent
    assert spool.append(whole, token="b") == 1
    assert [entry.key for entry in entries(spool)] == [(spool.epoch, 1)]
    assert len(batch_files(disk.folder)) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 40))
@example(seed=150, flips=1)  # damages the text of a trigger
@example(seed=690, flips=1)  # damages the same text so that it is not UTF-8
def test_opening_survives_any_flipped_bytes_in_the_index(
    tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int
) -> None:
    disk = Rig(tmp_path_factory.mktemp("flips") / "spool")
    spool = disk.open()
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    spool.append_all([draft(b"a"), draft(b"b", Lane.EVENTS)], resume_points={"can0": 5})
    spool.close()
    path = disk.folder / "index.sqlite3"
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(flips):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    again = disk.open()
    for entry in entries(again):
        again.read(entry)
    again.counts()
    again.resume_points()
    seq = again.append(draft(b"new"))
    (entry,) = (entry for entry in entries(again) if entry.key == (again.epoch, seq))
    assert again.read(entry) == draft(b"new").seal(seq)
    again.close()
