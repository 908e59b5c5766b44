"""The spool keeps batches durably, accounts for each of them, and survives whatever the disk does."""

import errno
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.errors import Permanent, Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal, Sealed
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Entry
from agent.telemetry.spool.batches import Queues
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.folder import QUARANTINE
from agent.telemetry.spool.ledger import MAX_UNREPORTED
from agent.telemetry.spool.reader import FRESH_BATCHES
from agent.telemetry.spool.schema import connect
from agent.telemetry.spool.writer import OutdatedIds
from tests.agent.telemetry.spool.flaky import Fault, FlakyDisk, connector
from tests.agent.telemetry.spool.store import WINDOW, Draft, Store

ALL = tuple(Lane)


class SetClock:
    """The machine's clocks: `now_s` since the boot, and a wall clock that is never set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> Clock:
        boottime_us = round(self.now_s * 1e6)
        return Clock(ClockQuality.UNSYNCHRONISED, "boot", boottime_us, boottime_us)


class Rig:
    """A spool folder with a clock that the test sets, and a disk that fails on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.fault = Fault()
        self.unsyncable = False  # whether syncing the folder of checkpoints fails

    def open(self, quota_bytes: int = 10**6, reserve_bytes: int = 0, max_age_s: float = 1_000.0) -> Store:
        return Store.open(
            self.folder,
            quota_bytes=quota_bytes,
            max_age_s=max_age_s,
            reserve_bytes=reserve_bytes,
            clock=self.clock,
            disk=UnsyncableDisk(self),
            open_database=connector(self.fault),
        )


class UnsyncableDisk(FlakyDisk):
    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.fault)
        self._rig = rig

    def sync_folder(self, folder: Path) -> None:
        if self._rig.unsyncable and folder.name == "checkpoints":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_folder(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


@pytest.fixture
def spool(disk: Rig) -> Iterator[Store]:
    spool = disk.open()
    yield spool
    spool.close()


def draft(content: bytes = b"sealed", lane: Lane = Lane.LIVE, priority: int = 0, samples: int = 3) -> Draft:
    return Draft(lane, priority, "city", lambda seq: b"%d:" % seq + content, samples, 10, 20)


def entries(spool: Store) -> list[Entry]:
    return spool.pending(1_000_000, exclude=(), lanes=ALL)


def stored(spool: Store) -> dict[int, bytes | None]:
    return {entry.seq: spool.read(entry) for entry in entries(spool)}


def batch_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("batches/*/*"), *folder.glob("checkpoints/*")])


def drop_table(disk: Disk, table: str) -> None:
    database = sqlite3.connect(disk.folder / "index.sqlite3")
    database.execute(f"DROP TABLE {table}")
    database.commit()
    database.close()


def unaccounted(spool: Store) -> int:
    """Return how many batches are neither acknowledged nor waiting nor lost."""
    counts = spool.counts()
    lost = sum(total.batches for total in counts.lost.values())
    known = counts.acknowledged + len(entries(spool)) + lost
    return counts.next_seq - 1 + counts.adopted - known


# ---- what is stored stays stored


def test_a_batch_is_there_after_opening_again(disk: Rig) -> None:
    spool = disk.open()
    assert [spool.append(draft(b"a")), spool.append(draft(b"b", Lane.EVENTS))] == [1, 2]
    epoch = spool.epoch
    spool.close()
    again = disk.open()
    assert again.epoch == epoch
    assert stored(again) == {1: b"1:a", 2: b"2:b"}
    assert again.append(draft()) == 3
    again.close()


def test_entries_say_what_they_are(spool: Store) -> None:
    spool.append(draft(b"x", Lane.BACKLOG, priority=7))
    (entry,) = entries(spool)
    assert (entry.key, entry.lane, entry.priority, entry.campaign) == ((spool.epoch, 1), Lane.BACKLOG, 7, "city")
    assert (entry.size_bytes, entry.samples, entry.first_t_us, entry.last_t_us) == (3, 3, 10, 20)


def test_numbers_are_not_used_again_after_everything_is_acknowledged(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([draft(), draft()])
    assert spool.acknowledge(spool.epoch, [1, 2, 3]) == 2
    spool.close()
    again = disk.open()
    assert entries(again) == []
    assert again.append(draft()) == 3
    assert batch_files(disk.folder)[0].name.startswith("000000000003.")
    again.close()


def test_acknowledging_twice_or_for_another_epoch_changes_nothing(spool: Store) -> None:
    spool.append(draft())
    assert spool.acknowledge("f" * 32, [1]) == 0
    assert spool.acknowledge(spool.epoch, [1, 1]) == 1
    assert spool.acknowledge(spool.epoch, [1]) == 0
    assert spool.counts().acknowledged == 1


def test_an_acknowledgement_of_another_digest_removes_nothing_and_confirms_no_catalogue(spool: Store) -> None:
    catalogue = bytes(range(16))
    spool.append(replace(draft(), carries=catalogue))
    spool.append(draft())
    first, second = sorted(entries(spool), key=lambda entry: entry.seq)
    others = [Sealed(1, second.sealed.digest), Sealed(2, first.sealed.digest), Sealed(3, second.sealed.digest)]
    assert spool.reader.acknowledge(spool.epoch, others) == ([], [1, 2])
    assert spool.catalogues() == {catalogue: None}
    both = [*others, first.sealed]  # the receiver stored two batches under this number
    assert spool.reader.acknowledge(spool.epoch, both) == ([1], [2])
    assert [entry.seq for entry in entries(spool)] == [2]
    assert spool.catalogues() == {catalogue: Verdict.CONFIRMED}


def test_batches_of_one_window_and_their_positions_are_stored_together(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([draft(b"a"), draft(b"b")], resume_points={"can0": 17, "can1": 4})
    disk.fault.arm("fail", 1, done=False)  # the second file
    with pytest.raises(Transient):
        spool.append_all([draft(b"c"), draft(b"d")], resume_points={"can0": 99})
    spool.close()
    again = disk.open()
    assert stored(again) == {1: b"1:a", 2: b"2:b"}
    assert again.resume_points() == {"can0": 17, "can1": 4}
    assert len(batch_files(disk.folder)) == 2
    again.close()


def test_positions_of_a_source_that_begins_anew_are_forgotten(disk: Rig) -> None:
    spool = disk.open()
    spool.append(draft(), resume_points={"drive.log:all": 17, "drive.log.2:all": 4, "can0:all": 9})
    spool.forget_resume_points(["drive.log"])
    spool.forget_resume_points([])
    spool.close()
    again = disk.open()
    assert again.resume_points() == {"drive.log.2:all": 4, "can0:all": 9}
    again.close()


def test_a_batch_that_was_sealed_under_an_id_that_is_not_the_next_is_refused(spool: Store) -> None:
    (id_,) = spool.writer.next_ids(1)
    late = draft(b"late").sealed(id_)
    assert spool.append(draft(b"first")) == 1
    with pytest.raises(OutdatedIds):
        spool.writer.append([late], token="late")
    assert (stored(spool), spool.stored("late")) == ({1: b"1:first"}, False)
    again = draft(b"late").sealed(*spool.writer.next_ids(1))
    spool.writer.append([again], token="later")
    assert stored(spool) == {1: b"1:first", 2: b"2:late"}


def test_appending_tells_the_listener(spool: Store) -> None:
    told = threading.Event()
    spool.reader.on_append = told.set
    spool.append(draft())
    assert told.is_set()


def test_a_second_process_is_refused(disk: Disk, spool: Store) -> None:
    with pytest.raises(Permanent, match="in use by another process"):
        disk.open()


# ---- order of sending


def test_lanes_then_priority_then_the_newest(spool: Store) -> None:
    spool.append(draft(lane=Lane.BACKLOG))
    spool.append(draft(lane=Lane.LIVE, priority=5))
    spool.append(draft(lane=Lane.LIVE, priority=1))
    spool.append(draft(lane=Lane.LIVE, priority=1))
    spool.append(draft(lane=Lane.EVENTS))
    assert [entry.seq for entry in entries(spool)] == [5, 4, 3, 2, 1]
    assert [entry.seq for entry in spool.pending(2, exclude={(spool.epoch, 4)}, lanes=(Lane.LIVE,))] == [3, 2]


@pytest.mark.parametrize("walk", [Queues.next_to_send, Queues.next_to_evict])
def test_the_order_comes_from_an_index_not_from_sorting(spool: Store, disk: Disk, walk: object) -> None:
    """The cost is constant for any backlog, because no table is scanned or sorted."""
    statements: list[str] = []
    database = connect(disk.folder / "index.sqlite3")
    database.set_trace_callback(statements.append)
    list(walk(Queues(database), Lane.LIVE))  # type: ignore[operator]
    plan = database.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    database.close()
    assert [row[3] for row in plan] == ["SEARCH batches USING INDEX by_value (lane=?)"]


def test_fresh_batches_are_told_from_old_ones_at_a_cost_that_does_not_grow_with_the_backlog(disk: Rig) -> None:
    spool = disk.open()
    for seq in range(8):
        spool.append(draft(lane=Lane.LIVE, priority=seq % 2))
        disk.clock.now_s += 100.0
    assert [entry.seq for entry in spool.pending(9, exclude=(), lanes=(Lane.LIVE,), fresh=True)] == [7, 8, 6]
    assert [entry.seq for entry in spool.pending(9, exclude=(), lanes=(Lane.LIVE,), fresh=False)] == [5, 3, 1, 4, 2]
    statements: list[str] = []
    database = connect(disk.folder / "index.sqlite3")
    database.set_trace_callback(statements.append)
    index = Queues(database)
    list(index.newest(Lane.LIVE, 9, 1, 0))
    list(index.not_newest(Lane.LIVE, 9, 1, 0))
    plans = [database.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall() for statement in statements[:2]]
    database.close()
    steps = [[row[3] for row in plan if "batches" in row[3]] for plan in plans]
    nth_newest = "SCAN batches"  # a scan from the newest, which ends at the limit
    assert steps == [
        ["SEARCH batches USING INTEGER PRIMARY KEY (rowid>?)", nth_newest],
        ["SEARCH batches USING INDEX by_value (lane=?)", nth_newest],
    ]


def test_of_a_burst_only_the_newest_batches_are_fresh(spool: Store) -> None:
    spool.append_all([draft(b"x", lane=Lane.LIVE) for _ in range(FRESH_BATCHES + 10)])
    fresh = spool.pending(10**6, exclude=(), lanes=(Lane.LIVE,), fresh=True)
    others = spool.pending(10**6, exclude=(), lanes=(Lane.LIVE,), fresh=False)
    assert [entry.seq for entry in fresh] == list(range(FRESH_BATCHES + 10, 10, -1))
    assert [entry.seq for entry in others] == list(range(10, 0, -1))


# ---- limits


def test_the_quota_evicts_the_oldest_and_names_every_one(disk: Rig) -> None:
    spool = disk.open(quota_bytes=1_000)
    for _ in range(30):
        spool.append(draft(bytes(98)))
    counts = spool.counts()
    assert counts.size_bytes <= 1_000
    assert sorted(stored(spool)) == list(range(31 - counts.batches, 31))
    assert counts.lost[Reason.EVICTED_QUOTA].batches == 30 - counts.batches
    assert counts.lost[Reason.EVICTED_QUOTA].samples == 3 * (30 - counts.batches)
    ((_, loss),) = spool.unreported_losses(10)
    assert (loss.epoch, loss.first_seq, loss.last_seq) == (spool.epoch, 1, 30 - counts.batches)
    assert (loss.lane, loss.campaign, loss.first_t_us, loss.last_t_us) == (Lane.LIVE, "city", 10, 20)
    assert len(batch_files(disk.folder)) == counts.batches
    spool.close()


def test_an_unimportant_batch_without_room_is_lost_by_name_and_leaves_the_important(disk: Rig) -> None:
    spool = disk.open(quota_bytes=299)
    spool.append_all([draft(bytes(98), priority=0)] * 2)
    assert spool.append(draft(bytes(98), priority=1)) == 3
    assert sorted(stored(spool)) == [1, 2]
    ((_, loss),) = spool.unreported_losses(10)
    assert (loss.reason, loss.first_seq, loss.batches) == (Reason.EVICTED_QUOTA, 3, 1)
    assert unaccounted(spool) == 0
    spool.close()


def test_age_evicts_and_names(disk: Rig) -> None:
    spool = disk.open(max_age_s=1_000.0)
    spool.append(draft())
    disk.clock.now_s += 900
    spool.append(draft())
    disk.clock.now_s += 200
    spool.append(draft())
    assert sorted(stored(spool)) == [2, 3]
    assert spool.counts().lost[Reason.EVICTED_AGE].batches == 1
    spool.close()


def test_the_free_space_reserve_is_left_to_others(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([draft()] * 3)
    spool.close()
    full = disk.open(reserve_bytes=10**18)
    full.append(draft())
    assert stored(full) == {}
    assert full.counts().lost[Reason.EVICTED_RESERVE].batches == 4
    assert unaccounted(full) == 0
    full.close()


# ---- the ledger


def test_losses_wait_until_the_batch_that_reports_them_arrived(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert spool.unreported_losses(10) == []
    spool.acknowledge(spool.epoch, [1])
    assert spool.counts().unreported == 0
    assert spool.counts().lost[Reason.BUS_OVERFLOW].frames == 5


def test_losses_wait_again_when_the_batch_that_reports_them_is_lost(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    spool.append(draft(lane=Lane.EVENTS), reports=[id_ for id_, _ in spool.unreported_losses(10)])
    (entry,) = spool.pending(9, exclude=(), lanes=list(Lane))
    refusals = {seq: Refusal("does not decompress", entry.sealed.digest) for seq in (1, 9)}
    assert spool.refuse(spool.epoch, refusals) == [1]
    reasons = {loss.reason: loss for _, loss in spool.unreported_losses(10)}
    assert reasons[Reason.BUS_OVERFLOW].frames == 5
    assert reasons[Reason.REFUSED_BY_RECEIVER].detail == "does not decompress"
    assert spool.counts().lost[Reason.BUS_OVERFLOW].frames == 5  # counted once


@pytest.mark.parametrize("digest", [b"", bytes(32), hashlib.sha256(b"junk in our name").digest()])
def test_a_refusal_of_other_bytes_under_our_number_costs_nothing(spool: Store, digest: bytes) -> None:
    spool.append(draft())
    assert spool.refuse(spool.epoch, {1: Refusal("does not decompress", digest)}) == []
    (entry,) = spool.pending(9, exclude=(), lanes=list(Lane))
    assert spool.read(entry) is not None
    assert spool.counts().lost == {}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_loss_that_waits_again_is_told_as_it_was_under_its_id(disk: Disk, restarted: bool) -> None:
    spool = disk.open()
    loss = Loss(Reason.MEMORY_FULL, samples=5)
    spool.record_losses([loss])
    told = spool.unreported_losses(10)
    spool.append(draft(lane=Lane.EVENTS), reports=[id_ for id_, _ in told])
    spool.record_losses([loss])  # another loss of the same kind
    (entry,) = entries(spool)
    spool.refuse(spool.epoch, {1: Refusal("no", entry.sealed.digest)})  # the receiver refuses the report
    if restarted:
        spool.close()
        spool = disk.open()
    spool.record_losses([loss])
    again = [(id_, found) for id_, found in spool.unreported_losses(10) if found.reason is Reason.MEMORY_FULL]
    assert again[0] == told[0]
    assert sum(found.samples for _, found in again) == 15
    spool.close()


def test_nothing_is_merged_into_a_loss_that_a_batch_under_way_tells(spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=7)])
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert [loss.frames for _, loss in spool.unreported_losses(10)] == [7]


def test_ids_of_losses_mean_nothing_else_after_the_index_was_made_anew(disk: Disk, spool: Store) -> None:
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    ids = [id_ for id_, _ in spool.unreported_losses(10)]
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.acknowledge(spool.epoch, [1])
    spool.append(draft(lane=Lane.EVENTS), reports=ids)
    assert [loss.reason for _, loss in spool.unreported_losses(10)] == [Reason.INDEX_DAMAGED]


def test_the_ledger_stays_bounded_and_keeps_every_count(spool: Store) -> None:
    spool.record_losses(Loss(Reason.BUS_OVERFLOW, bus=f"can{n}", frames=1) for n in range(MAX_UNREPORTED + 500))
    assert spool.counts().unreported == MAX_UNREPORTED
    assert sum(loss.frames for _, loss in spool.unreported_losses(10_000)) == MAX_UNREPORTED + 500


# ---- damage


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


# ---- failing disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failed_write_changes_nothing_and_can_be_repeated(disk: Disk, spool: Store, code: int) -> None:
    disk.fault.arm("fail", 0, done=False, code=code)
    with pytest.raises(Transient, match=rf"spool .*{os.strerror(code)}.*the data stays in memory"):
        spool.append(draft(b"a"), resume_points={"can0": 1})
    assert entries(spool) == []
    assert spool.resume_points() == {}
    assert spool.append(draft(b"a"), resume_points={"can0": 1}) == 1
    assert stored(spool) == {1: b"1:a"}


@pytest.mark.parametrize("landed", [False, True])
def test_whether_a_commit_that_reports_an_error_happened_is_known_by_its_token(
    disk: Rig, spool: Store, landed: bool
) -> None:
    spool.append(draft(b"a"), resume_points={"can0": 1})
    spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5)])
    waiting = spool.unreported_losses(10)
    ids = [id_ for id_, _ in waiting]
    disk.fault.arm("fail", 1, done=landed)
    batch = draft(b"b").sealed(*spool.writer.next_ids(1), ids)
    with pytest.raises(Transient, match="disk I/O error"):
        spool.writer.append([batch], token="b", resume_points={"can0": 2})
    assert spool.stored("b") is landed
    assert spool.resume_points() == {"can0": 2 if landed else 1}
    assert spool.unreported_losses(10) == ([] if landed else waiting)
    assert len(batch_files(disk.folder)) == (2 if landed else 1)
    spool.writer.append([batch], token="b", resume_points={"can0": 2})  # does nothing if the append happened
    assert stored(spool) == {1: b"1:a", 2: b"2:b"}
    assert spool.unreported_losses(10) == []
    assert (len(batch_files(disk.folder)), spool.counts().next_seq) == (2, 3)


def test_an_append_that_happened_is_not_repeated_where_the_index_is_lost_after(disk: Rig, spool: Store) -> None:
    disk.fault.arm("fail", 1, done=True)
    batch = draft(b"a").sealed(*spool.writer.next_ids(1))
    with pytest.raises(Transient):
        spool.writer.append([batch], token="a")
    assert stored(spool) == {1: b"1:a"}  # it may be sent from now on
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.counts()
    assert spool.stored("a")


@pytest.mark.parametrize("landed", [False, True])
def test_a_batch_that_had_no_room_in_an_append_that_failed_is_lost_once(disk: Rig, landed: bool) -> None:
    spool = disk.open(quota_bytes=299)
    spool.append_all([draft(bytes(98))] * 2)
    batch = draft(bytes(98), priority=1).sealed(*spool.writer.next_ids(1))
    disk.fault.arm("fail", 0, done=landed)
    with pytest.raises(Transient):
        spool.writer.append([batch], token="a")
    spool.writer.append([batch], token="a")
    assert spool.counts().lost[Reason.EVICTED_QUOTA].batches == 1
    assert unaccounted(spool) == 0
    spool.close()


def test_a_full_database_is_transient_and_recovers(disk: Rig) -> None:
    pages = [1_000_000]

    def small(path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.execute(f"PRAGMA max_page_count = {pages[0]}")
        return database

    spool = Store.open(disk.folder, quota_bytes=10**8, max_age_s=1e9, reserve_bytes=0, open_database=small)
    spool.append(draft())
    pages[0] = 1  # SQLite raises the limit to the pages in use
    spool.close()
    spool = Store.open(disk.folder, quota_bytes=10**8, max_age_s=1e9, reserve_bytes=0, open_database=small)
    appended = 1
    with pytest.raises(Transient, match="full"):
        for _ in range(10_000):
            spool.append(draft())
            appended += 1
    assert len(entries(spool)) == appended
    pages[0] = 1_000_000
    with pytest.raises(Transient, match="full"):
        spool.append(draft())  # the open connection keeps the old limit until it fails
    assert spool.append(draft()) == appended + 1
    assert unaccounted(spool) == 0
    spool.close()


def test_files_of_acknowledged_batches_stay_until_they_are_swept(disk: Disk, spool: Store) -> None:
    spool.append_all([draft(), draft(), draft()])
    assert spool.acknowledge(spool.epoch, [1, 3]) == 2
    assert len(batch_files(disk.folder)) == 3
    spool.sweep()
    assert [path.name[:12] for path in batch_files(disk.folder)] == ["000000000002"]


def test_an_acknowledged_batch_is_not_taken_in_again_where_the_index_is_made_anew(disk: Disk, spool: Store) -> None:
    epoch = spool.epoch
    spool.append_all([draft(), draft()])
    spool.acknowledge(epoch, [1])
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.counts()
    assert [entry.key for entry in entries(spool)] == [(epoch, 2)]


def test_what_was_acknowledged_is_swept_before_anything_is_evicted_for_space(tmp_path: Path) -> None:
    class Small(Disk):
        def free_bytes(self, folder: Path) -> int:
            return 10_000 - 1_000 * len(batch_files(folder))

    spool = Store.open(tmp_path, quota_bytes=10**6, max_age_s=1e3, reserve_bytes=8_000, disk=Small())
    spool.append(draft())
    spool.append(draft())
    spool.acknowledge(spool.epoch, [1])
    spool.append(draft())
    assert spool.counts().lost == {}
    assert [entry.seq for entry in entries(spool)] == [3, 2]
    spool.close()


def test_a_file_that_cannot_be_removed_is_removed_later(disk: Disk, spool: Store) -> None:
    spool.append_all([draft(), draft()])
    spool.acknowledge(spool.epoch, [1, 2])
    disk.fault.arm("fail", 0, done=False, code=errno.EIO)
    spool.sweep()
    assert len(batch_files(disk.folder)) == 1
    spool.sweep()
    assert batch_files(disk.folder) == []


def test_a_closed_spool_says_so(disk: Rig) -> None:
    spool = disk.open()
    spool.close()
    with pytest.raises(Permanent, match="is closed"):
        spool.counts()


# ---- SIGKILL

_CHILD = """
import sys
from pathlib import Path
from agent.formats.topics import Lane
from tests.agent.telemetry.spool.store import Draft, Store

spool = Store.open(Path(sys.argv[1]), quota_bytes=10**9, max_age_s=1e9, reserve_bytes=0)
point = spool.resume_points().get("can0", 0)
while True:
    point += 1
    seq = spool.append(
        Draft(Lane.LIVE, 0, "", lambda seq: b"%d %d " % (seq, point) + bytes(3_000)),
        resume_points={"can0": point},
        token=str(point),
    )
    print(seq, point, flush=True)
    if seq % 5 == 0:
        print("ack", seq - 3, flush=True)
        spool.acknowledge(spool.epoch, [seq - 3])
"""


def test_sigkill_at_any_moment_loses_nothing_that_was_reported_durable(tmp_path: Path) -> None:
    chance = random.Random(7)
    reported: dict[int, int] = {}
    maybe_acknowledged: set[int] = set()
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline()]  # the child is running
        timer = threading.Timer(chance.uniform(0.0, 0.12), os.kill, (child.pid, signal.SIGKILL))
        timer.start()
        lines += child.stdout.readlines()
        child.wait()
        timer.join()
        for line in lines:
            match line.split():
                case ["ack", seq]:
                    maybe_acknowledged.add(int(seq))
                case [seq, position] if line.endswith("\n"):
                    assert int(seq) not in reported
                    reported[int(seq)] = int(position)
    spool = Store.open(tmp_path / "spool", quota_bytes=10**9, max_age_s=1e9, reserve_bytes=0)
    found = {}
    for entry in entries(spool):
        content = spool.read(entry)
        assert content is not None
        seq, position, _ = content.split(b" ", 2)
        assert int(seq) == entry.seq
        found[entry.seq] = int(position)
    counts = spool.counts()
    assert len(reported) > 12
    assert reported.keys() - found.keys() <= maybe_acknowledged
    assert all(found[seq] == position for seq, position in reported.items() if seq in found)
    # Each resume point was stored exactly once, whether or not the child still reported it.
    assert sorted(found.values()) == sorted(set(found.values()))
    assert counts.next_seq - 1 == counts.batches + counts.acknowledged == spool.resume_points()["can0"]
    assert counts.lost == {}
    spool.close()
