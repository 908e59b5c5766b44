"""Batches that the disk has no room for are sent from memory, and each is delivered, kept or lost by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.shortage import RESERVE
from tests.agent.telemetry.spool.flaky import Fault, connector
from tests.agent.telemetry.spool.store import WINDOW, BatchId, Draft, Store

ALL = tuple(Lane)
MEMORY_BYTES = 1_000
RESERVE_BYTES = 10_000


class Rig(Disk):
    """A spool on a disk whose free space the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free = 0
        self.fault = Fault()
        self._token = 0

    def free_bytes(self, folder: Path) -> int:
        return self.free

    def open(self, quota_bytes: int = 10**6, memory_bytes: int = MEMORY_BYTES) -> Store:
        limits = Limits.of(quota_bytes, 1e9, RESERVE_BYTES, memory_bytes)
        return Store(self.folder / "spool", limits, disk=self, open_database=connector(self.fault))

    def keep(self, spool: Store) -> None:
        self._token += 1
        spool.catch_up.keep(f"keep {self._token}")

    def files(self) -> int:
        return len(list((self.folder / "spool" / "batches").glob("*/*")))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def spool(rig: Rig) -> Iterator[Store]:
    spool = rig.open()
    yield spool
    spool.close()


def draft(size: int = 100, lane: Lane = Lane.LIVE, priority: int = 0) -> Draft:
    return Draft(lane, priority, "city", lambda seq: b"%03d" % seq + bytes(size - 3), 7, 10, 20)


def waiting(spool: Store) -> dict[int, bytes | None]:
    found = spool.pending(1_000, exclude=(), lanes=ALL)
    assert all(entry.size_bytes == len(spool.read(entry) or b"") for entry in found)
    return {entry.seq: spool.read(entry) for entry in found}


def adds_up(spool: Store) -> bool:
    counts = spool.counts()
    lost = sum(total.batches for total in counts.lost.values())
    return counts.next_seq - 1 + counts.adopted == counts.acknowledged + len(waiting(spool)) + lost


def test_below_the_reserve_a_batch_is_offered_from_memory_and_leaves_with_its_acknowledgement(
    rig: Rig, spool: Store
) -> None:
    assert spool.append(draft(), resume_points={"can0:city": 5}) == 1
    assert {seq: content[:3] for seq, content in waiting(spool).items() if content} == {1: b"001"}
    assert (rig.files(), spool.counts().in_memory, spool.counts().size_bytes) == (0, (1, 100), 100)
    assert spool.resume_points() == {"can0:city": 5}
    assert spool.acknowledge(spool.epoch, [1]) == 1
    assert (waiting(spool), spool.counts().in_memory, spool.counts().lost) == ({}, (0, 0), {})
    assert adds_up(spool)


def test_a_quota_smaller_than_a_batch_is_no_loss_while_the_fleet_answers(rig: Rig) -> None:
    rig.free = 10**9
    spool = rig.open(quota_bytes=50)
    for number in range(1, 30):
        spool.append(draft())
        assert spool.acknowledge(spool.epoch, [number]) == 1
    assert spool.counts().lost == {}
    assert adds_up(spool)
    spool.close()


def test_beyond_the_limit_of_memory_the_oldest_of_the_least_important_is_lost_by_name_once(spool: Store) -> None:
    for _ in range(5):
        spool.append(draft(priority=1))
        spool.append(draft())
    for _ in range(3):
        spool.append(draft())
    assert sorted(waiting(spool)) == [2, 4, 6, 7, 8, 9, 10, 11, 12, 13]
    lost = spool.counts().lost[Reason.EVICTED_RESERVE]
    assert (lost.batches, lost.samples) == (3, 21)
    assert sorted(loss.first_seq or 0 for _, loss in spool.unreported_losses(9)) == [1, 3, 5]
    assert adds_up(spool)


def test_a_batch_larger_than_memory_is_lost_by_name(spool: Store) -> None:
    spool.append(draft(2_000))
    assert waiting(spool) == {}
    assert spool.counts().lost[Reason.EVICTED_RESERVE].batches == 1
    assert adds_up(spool)


def test_events_outlive_data_in_memory(spool: Store) -> None:
    spool.append(draft(60, Lane.EVENTS))
    for _ in range(20):
        spool.append(draft())
    assert 1 in waiting(spool)


def test_what_memory_held_when_the_process_ended_is_lost_for_the_reason_it_was_held(rig: Rig) -> None:
    spool = rig.open()
    spool.append_all([draft(), draft()])
    spool.acknowledge(spool.epoch, [1])
    spool.close()
    again = rig.open()
    assert waiting(again) == {}
    ((_, loss),) = again.unreported_losses(9)
    assert (loss.reason, loss.first_seq, loss.last_seq, loss.samples) == (Reason.EVICTED_RESERVE, 2, 2, 7)
    assert again.append(draft()) == 3  # the numbers of the lost batches are never used again
    assert adds_up(again)
    again.close()


def test_when_the_disk_has_room_again_it_takes_what_memory_holds(rig: Rig) -> None:
    spool = rig.open()
    spool.append_all([draft(), draft()])
    before = waiting(spool)
    rig.keep(spool)
    assert rig.files() == 0
    rig.free = RESERVE_BYTES + 150
    rig.keep(spool)
    assert (rig.files(), spool.counts().in_memory[0]) == (1, 1)
    rig.free = 10**9
    rig.keep(spool)
    assert (rig.files(), spool.counts().in_memory, waiting(spool)) == (2, (0, 0), before)
    spool.close()
    again = rig.open()
    assert waiting(again) == before
    assert again.counts().lost == {}
    assert adds_up(again)
    again.close()


@pytest.mark.parametrize("done", [False, True])
def test_a_move_to_the_disk_that_fails_is_repeated_and_loses_nothing(rig: Rig, done: bool) -> None:
    spool = rig.open()
    spool.append_all([draft(), draft()])
    before, rig.free = waiting(spool), 10**9
    rig.fault.arm("fail", 0, done=done)
    with pytest.raises(Transient):
        rig.keep(spool)
    assert waiting(spool) == before
    rig.keep(spool)
    spool.close()
    again = rig.open()
    assert (waiting(again), again.counts().lost) == (before, {})
    again.close()


@pytest.mark.parametrize("done", [False, True])
def test_an_append_to_memory_whose_commit_fails_happened_or_not_and_its_number_names_one_batch(
    rig: Rig, spool: Store, done: bool
) -> None:
    rig.fault.arm("fail", 0, done=done)
    with pytest.raises(Transient):
        spool.append(draft(), token="first")
    assert spool.stored("first") is done
    assert set(waiting(spool)) == ({1} if done else set())
    second = spool.append(draft(120))
    assert (second, len(waiting(spool)[second] or b"")) == (2 if done else 1, 120)
    assert adds_up(spool)


def test_a_damaged_index_costs_no_batch_in_memory(rig: Rig, spool: Store) -> None:
    spool.append_all([draft(), draft()])
    before = waiting(spool)
    with spool._transactions.reading() as index:
        index._db.execute("DROP TABLE batches")
    with pytest.raises(Transient, match="rebuilt"):
        spool.pending(9, exclude=(), lanes=ALL)
    assert waiting(spool) == before
    assert adds_up(spool)


def test_a_window_in_memory_takes_the_place_of_its_checkpoints(rig: Rig) -> None:
    rig.free = 10**9
    spool = rig.open()
    checkpoint = Draft(Lane.LIVE, 0, "city", lambda _: b"checkpoint", 3, checkpoint=BatchId(WINDOW, 1))
    spool.append(checkpoint)
    rig.free = 0
    spool.append(Draft(Lane.LIVE, 0, "city", lambda _: b"the window", 7, window=WINDOW))
    assert waiting(spool) == {1: b"the window"}
    spool.close()
    again = rig.open()
    assert waiting(again) == {}
    assert {reason: total.samples for reason, total in again.counts().lost.items()} == {Reason.EVICTED_RESERVE: 7}
    again.close()


def test_the_shortages_begin_and_end_with_the_room(rig: Rig, spool: Store) -> None:
    assert set(spool.catch_up.shortages()) == {RESERVE}
    assert "0 bytes are free" in spool.catch_up.shortages()[RESERVE]
    for _ in range(11):
        spool.append(draft())
    assert set(spool.catch_up.shortages()) == {RESERVE, Reason.EVICTED_RESERVE}
    rig.free = RESERVE_BYTES
    assert set(spool.catch_up.shortages()) == {Reason.EVICTED_RESERVE}  # a little more must be free to end it
    rig.free = 10**9
    assert spool.catch_up.shortages() == {}


def test_evictions_for_the_quota_count_as_one_until_there_is_room(rig: Rig) -> None:
    rig.free = 10**9
    spool = rig.open(quota_bytes=1_000, memory_bytes=0)
    for number in range(1, 40):
        spool.append(draft(90))
        assert bool(spool.catch_up.shortages()) == (number > 11)
    spool.acknowledge(spool.epoch, range(35, 40))
    assert spool.catch_up.shortages() == {}
    spool.close()
