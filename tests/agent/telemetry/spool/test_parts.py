"""Parts of open windows in the spool: there after a crash, replaced by their window's batch, explained in any case."""

from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.ledger import Span, State
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.spool.account import ledger_on_disk
from agent.telemetry.spool.spool import Draft, Spool, Superseded
from tests.agent.telemetry.spool.test_spool import Disk, batch_files, entries, stored, unaccounted


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "spool")


def part(content: bytes = b"part", *, priority: int = 0, last_t_us: int = 20) -> Draft:
    return Draft(Lane.LIVE, priority, "city", lambda seq: b"%d:" % seq + content, 3, 10, last_t_us, provisional=True)


def whole(spool: Spool, *seqs: int, content: bytes = b"whole") -> Draft:
    replaces = tuple((spool.epoch, seq) for seq in seqs)
    return Draft(Lane.LIVE, 0, "city", lambda seq: b"%d:" % seq + content, 6, 10, 30, replaces=replaces)


def explained(spool: Spool) -> list[tuple[Reason, int, int | None, int | None]]:
    found = (loss for _, loss in spool.unreported_losses(100))
    return [(loss.reason, loss.batches, loss.first_seq, loss.last_seq) for loss in found]


def test_parts_are_never_offered_and_go_when_their_window_is_stored(disk: Disk) -> None:
    spool = disk.open()
    woken: list[None] = []
    spool.on_append = lambda: woken.append(None)
    assert [spool.append(part()), spool.append(part())] == [1, 2]
    assert (entries(spool), woken) == ([], [])
    assert (spool.counts().provisional, spool.counts().batches) == ((2, 12), 0)
    assert spool.append(whole(spool, 1, 2)) == 3
    assert stored(spool) == {3: b"3:whole"}
    assert [path.name[:12] for path in batch_files(disk.folder)] == ["000000000003"]
    assert (spool.counts().provisional, spool.counts().replaced, spool.counts().lost) == ((0, 0), 2, {})
    assert unaccounted(spool) == 0
    spool.close()
    assert stored(disk.open()) == {3: b"3:whole"}


def test_after_a_crash_the_parts_are_delivered_instead(disk: Disk) -> None:
    spool = disk.open()
    spool.append_all([part(b"a"), part(b"b")], positions={"can0:city": 9})
    spool.close()
    again = disk.open()
    assert stored(again) == {1: b"1:a", 2: b"2:b"}
    assert (again.counts().provisional, again.positions(), unaccounted(again)) == ((0, 0), {"can0:city": 9}, 0)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("done", [False, True])
def test_where_replacing_fails_the_parts_are_there_as_before(disk: Disk, after: int, done: bool) -> None:
    spool = disk.open()
    spool.append_all([part(b"a"), part(b"b")])
    disk.fault.arm("fail", after, done=done)
    with pytest.raises(Transient):
        spool.append(whole(spool, 1, 2))
    assert (spool.counts().provisional, spool.counts().replaced) == ((2, 6), 0)
    assert spool.append(whole(spool, 1, 2)) == 3
    assert (stored(spool), unaccounted(spool)) == ({3: b"3:whole"}, 0)


def test_parts_yield_to_what_is_worth_more_and_nothing_is_lost_while_their_window_is_in_memory(disk: Disk) -> None:
    spool = disk.open(quota_bytes=250)
    spool.append(part(bytes(98), priority=7))
    spool.append(Draft(Lane.LIVE, 1, "dear", lambda _: bytes(200)))
    assert (spool.counts().provisional, spool.counts().lost, len(batch_files(disk.folder))) == ((1, 0), {}, 1)
    spool.append(whole(spool, 1))
    assert (spool.counts().replaced, spool.counts().lost, unaccounted(spool)) == (1, {}, 0)


def test_after_a_crash_a_part_that_had_to_yield_is_lost_by_name(disk: Disk) -> None:
    spool = disk.open(quota_bytes=250)
    spool.append(part(bytes(98), priority=7))
    spool.append(Draft(Lane.LIVE, 1, "dear", lambda _: bytes(200)))
    spool.append(part(bytes(98), priority=7))  # finds no room at all
    spool.close()
    again = disk.open(quota_bytes=250)
    lost = again.counts().lost[Reason.EVICTED_QUOTA]
    assert (lost.batches, lost.samples, unaccounted(again)) == (2, 6, 0)


def test_what_replaces_parts_needs_no_more_room_than_it_has_itself(disk: Disk) -> None:
    spool = disk.open(quota_bytes=1_000)
    spool.append(Draft(Lane.LIVE, 0, "old", lambda _: bytes(300)))
    spool.append(part(bytes(300)))
    spool.append(part(bytes(300)))
    spool.append(whole(spool, 2, 3, content=bytes(500)))
    assert (spool.counts().batches, spool.counts().lost) == (2, {})


def test_where_the_window_is_lost_the_ledger_explains_the_numbers_that_it_replaced(disk: Disk) -> None:
    spool = disk.open(quota_bytes=300)
    for number in range(5):
        spool.append(part() if number != 2 else Draft(Lane.EVENTS, 0, "", lambda _: b"event"))
    spool.append(whole(spool, 1, 2, 4, 5))
    spool.append(Draft(Lane.LIVE, 0, "dear", lambda _: bytes(290)))
    assert explained(spool) == [
        (Reason.EVICTED_QUOTA, 1, 6, 6),
        (Reason.REPLACED, 2, 1, 2),
        (Reason.REPLACED, 2, 4, 5),
    ]
    assert unaccounted(spool) == 0


def test_a_window_that_finds_no_room_explains_its_parts_as_well(disk: Disk) -> None:
    spool = disk.open(quota_bytes=300)
    spool.append(Draft(Lane.LIVE, 0, "dear", lambda _: bytes(280)))
    spool.append(part(b"", priority=5))
    parts = ((spool.epoch, 2),)
    spool.append(Draft(Lane.LIVE, 5, "city", lambda _: bytes(100), 6, 10, 30, replaces=parts))
    assert explained(spool) == [(Reason.EVICTED_QUOTA, 1, 3, 3), (Reason.REPLACED, 1, 2, 2)]
    assert unaccounted(spool) == 0


def test_replaced_numbers_share_the_fate_of_their_window_in_the_ledger(disk: Disk) -> None:
    spool = disk.open()
    spool.append_all([part(), part()])
    spool.append(whole(spool, 1, 2))
    assert ledger_on_disk(disk.folder) == {spool.epoch: [Span(1, 3, State.WAITING)]}
    spool.acknowledge(spool.epoch, [3])
    assert ledger_on_disk(disk.folder) == {spool.epoch: [Span(1, 3, State.STORED)]}


def test_parts_that_became_ordinary_are_not_replaced(disk: Disk) -> None:
    spool = disk.open()
    spool.append(part())
    spool.promote([(spool.epoch, 1)])
    assert stored(spool) == {1: b"1:part"}
    with pytest.raises(Superseded):
        spool.append(whole(spool, 1))
    assert unaccounted(spool) == 0


def test_an_index_that_is_lost_leaves_the_parts_to_be_delivered(disk: Disk) -> None:
    spool = disk.open()
    spool.append(part(b"a"))
    spool.close()
    (disk.folder / "index.sqlite3").write_bytes(b"no database" * 100)
    assert stored(disk.open()) == {1: b"1:a"}


# ---- runs


def losses(spool: Spool) -> list[Loss]:
    return [loss for _, loss in spool.unreported_losses(100)]


def test_a_run_that_did_not_end_well_lost_what_came_after_the_last_durable_frame(disk: Disk) -> None:
    spool = disk.open()
    spool.begin_run(5, lossy="can0")
    assert losses(spool) == []
    spool.append(part(last_t_us=1_000))
    spool.append(part(last_t_us=2_000))
    spool.close()
    again = disk.open()
    again.begin_run(9_000, lossy="can0")
    (loss,) = losses(again)
    assert (loss.reason, loss.campaign, loss.detail) == (Reason.OPEN_WINDOW, "city", "can0")
    assert (loss.first_t_us, loss.last_t_us, loss.epoch) == (2_000, 9_000, again.epoch)


def test_a_run_that_stored_nothing_lost_what_came_since_it_began(disk: Disk) -> None:
    first = disk.open()
    first.begin_run(5, lossy="can0")
    first.close()
    spool = disk.open()
    spool.begin_run(70, lossy="can0, can1")
    assert [(loss.campaign, loss.first_t_us, loss.last_t_us) for loss in losses(spool)] == [("", 5, 70)]


@pytest.mark.parametrize("ended", [False, True])
def test_nothing_was_lost_where_all_was_stored_or_the_sources_still_have_it(disk: Disk, ended: bool) -> None:
    spool = disk.open()
    spool.begin_run(5, lossy="")
    spool.append(part())
    if ended:
        spool.end_run()
    spool.close()
    again = disk.open()
    again.begin_run(70, lossy="can0" if ended else "")
    assert losses(again) == []
