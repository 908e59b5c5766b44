"""The spool keeps batches durably, sends them in order, and stays within its limits."""

import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Permanent, Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Sealed
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.spool.batches import Queues
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.reader import FRESH_BATCHES
from agent.telemetry.spool.schema import connect
from agent.telemetry.spool.writer import OutdatedIds
from tests.agent.telemetry.spool.rig import Rig, batch_files, draft, entries, stored, unaccounted
from tests.agent.telemetry.spool.store import Store

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


def test_a_closed_spool_says_so(disk: Rig) -> None:
    spool = disk.open()
    spool.close()
    with pytest.raises(Permanent, match="is closed"):
        spool.counts()


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
