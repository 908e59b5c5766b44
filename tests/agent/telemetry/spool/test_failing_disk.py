"""A write, commit or removal that the disk refuses loses nothing and doubles nothing."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.schema import connect
from tests.agent.telemetry.spool.rig import (
    Rig,
    batch_files,
    draft,
    drop_table,
    entries,
    stored,
    unaccounted,
)
from tests.agent.telemetry.spool.store import Store


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
