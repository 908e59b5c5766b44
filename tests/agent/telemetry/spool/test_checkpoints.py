"""Checkpoints survive a crash, are dropped when their window is stored, and are never sent beside their window."""

from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.ledger import Span, State
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.account import ledger_on_disk
from agent.telemetry.spool.batch import BatchId, Fragment, SealedBatch
from agent.telemetry.spool.runs import LATE_US
from tests.agent.telemetry.spool.rig import Rig, batch_files, drop_table, entries, unaccounted
from tests.agent.telemetry.spool.store import WINDOW, Draft, Store

OTHER = "d" * 32


@pytest.fixture
def disk(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


def checkpoint(
    number: int, content: bytes = b"part", *, priority: int = 0, last_t_us: int = 20, window: str = WINDOW
) -> Draft:
    id_ = BatchId(window, number)
    return Draft(Lane.LIVE, priority, "city", lambda seq: b"%d:" % seq + content, 3, 10, last_t_us, checkpoint=id_)


def whole(content: bytes = b"whole", *, priority: int = 0) -> Draft:
    return Draft(Lane.LIVE, priority, "city", lambda seq: b"%d:" % seq + content, 6, 10, 30, window=WINDOW)


def dear(size: int) -> Draft:
    return Draft(Lane.LIVE, 1, "dear", lambda _: bytes(size))


def fragments(spool: Store, *contents: bytes) -> list[SealedBatch]:
    count = len(contents)
    return [
        SealedBatch(id_, Lane.LIVE, 0, content, "city", 2, 10, 30, fragment=Fragment(WINDOW, number, count))
        for number, (id_, content) in enumerate(zip(spool.writer.next_ids(count), contents, strict=True), 1)
    ]


def sent(spool: Store) -> dict[tuple[str, int], bytes | None]:
    return {tuple(entry.key): spool.read(entry) for entry in entries(spool)}


def explained(spool: Store) -> list[tuple[Reason, int, str, int | None, int | None]]:
    found = (loss for _, loss in spool.unreported_losses(100))
    return [(loss.reason, loss.batches, loss.epoch, loss.first_seq, loss.last_seq) for loss in found]


def lose_the_index(disk: Rig) -> None:
    (disk.folder / "index.sqlite3").write_bytes(b"no database" * 100)


def keep_files(disk: Rig) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in batch_files(disk.folder)}


def bring_back(files: dict[Path, bytes]) -> None:
    """Undo removals, as a power cut may do if it comes before the removals are durable."""
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


# ---- while the window is open


def test_checkpoints_are_never_offered_and_go_when_their_window_is_stored(disk: Rig) -> None:
    spool = disk.open()
    woken: list[None] = []
    spool.reader.on_append = lambda: woken.append(None)
    spool.append_all([checkpoint(1), checkpoint(2)])
    assert (entries(spool), woken) == ([], [])
    assert (spool.counts().checkpoints, spool.counts().batches) == ((2, 12), 0)
    assert spool.append(whole()) == 1  # a checkpoint uses up no number
    assert sent(spool) == {(spool.epoch, 1): b"1:whole"}
    assert [path.name[:12] for path in batch_files(disk.folder)] == ["000000000001"]
    assert (spool.counts().checkpoints, spool.counts().adopted, spool.counts().lost) == ((0, 0), 0, {})
    assert (unaccounted(spool), len(woken)) == (0, 1)
    spool.close()
    assert sent(disk.open()) == {(spool_epoch(disk), 1): b"1:whole"}


def spool_epoch(disk: Rig) -> str:
    (folder,) = (disk.folder / "batches").iterdir()
    return folder.name


def test_after_a_crash_the_checkpoints_are_sent_instead(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1, b"a"), checkpoint(2, b"b")], resume_points={"can0:city": 9})
    spool.close()
    again = disk.open()
    assert sent(again) == {(WINDOW, 1): b"1:a", (WINDOW, 2): b"2:b"}
    assert (again.counts().checkpoints, again.resume_points(), unaccounted(again)) == ((0, 0), {"can0:city": 9}, 0)
    assert again.acknowledge(WINDOW, [1, 2]) == 2
    assert (again.counts().acknowledged, again.counts().adopted, unaccounted(again)) == (2, 2, 0)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("done", [False, True])
def test_where_storing_the_window_fails_its_checkpoints_are_there_until_it_is_stored(
    disk: Rig, after: int, done: bool
) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1, b"a"), checkpoint(2, b"b")])
    disk.fault.arm("fail", after, done=done)
    batch = whole().sealed(*spool.writer.next_ids(1))
    with pytest.raises(Transient):
        spool.writer.append([batch], token="a")
    happened = spool.stored("a")
    assert happened == (after == 1 and done)
    assert spool.counts().checkpoints == ((0, 0) if happened else (2, 6))
    spool.writer.append([batch], token="a")
    assert (sent(spool), spool.counts().checkpoints, unaccounted(spool)) == ({(spool.epoch, 1): b"1:whole"}, (0, 0), 0)
    assert len(batch_files(disk.folder)) == 1


@pytest.mark.parametrize("landed", [False, True])
def test_a_checkpoint_replaces_one_of_a_failed_append_that_happened(disk: Rig, landed: bool) -> None:
    spool = disk.open()
    spool.append(checkpoint(1, b"a"))
    disk.fault.arm("fail", 1, done=landed)
    with pytest.raises(Transient):
        spool.append(checkpoint(2, b"b"))
    spool.append(checkpoint(2, b"b and c"))
    assert (spool.counts().checkpoints, len(batch_files(disk.folder))) == ((2, 12), 2)
    spool.close()
    assert sent(disk.open()) == {(WINDOW, 1): b"1:a", (WINDOW, 2): b"2:b and c"}


def test_checkpoints_yield_to_what_is_worth_more_and_nothing_is_lost_while_their_window_is_in_memory(
    disk: Rig,
) -> None:
    spool = disk.open(quota_bytes=250)
    spool.append(checkpoint(1, bytes(98), priority=7))
    spool.append(dear(200))
    assert (spool.counts().checkpoints, spool.counts().lost, len(batch_files(disk.folder))) == ((1, 0), {}, 1)
    spool.append(whole())
    assert (spool.counts().checkpoints, spool.counts().lost, unaccounted(spool)) == ((0, 0), {}, 0)


def test_after_a_crash_a_checkpoint_that_had_to_yield_is_lost_by_name(disk: Rig) -> None:
    spool = disk.open(quota_bytes=250)
    spool.append(checkpoint(1, bytes(98), priority=7))
    spool.append(dear(200))
    spool.append(checkpoint(2, bytes(98), priority=7))  # there is no room for this one
    spool.close()
    again = disk.open(quota_bytes=250)
    lost = again.counts().lost[Reason.EVICTED_QUOTA]
    assert (lost.batches, lost.samples, unaccounted(again)) == (2, 6, 0)
    assert explained(again) == [(Reason.EVICTED_QUOTA, 2, WINDOW, 1, 2)]


def test_a_window_needs_no_more_room_than_it_has_itself(disk: Rig) -> None:
    spool = disk.open(quota_bytes=1_000)
    spool.append(Draft(Lane.LIVE, 0, "old", lambda _: bytes(300)))
    spool.append_all([checkpoint(1, bytes(298)), checkpoint(2, bytes(298))])
    spool.append(whole(bytes(500)))
    assert (spool.counts().batches, spool.counts().lost) == (2, {})


def test_a_window_that_finds_no_room_is_lost_and_its_checkpoints_are_not_sent(disk: Rig) -> None:
    spool = disk.open(quota_bytes=300)
    spool.append(dear(280))
    spool.append(checkpoint(1, b"", priority=5))
    spool.append(whole(bytes(100), priority=5))
    assert explained(spool) == [(Reason.EVICTED_QUOTA, 1, spool.epoch, 2, 2)]
    assert (len(entries(spool)), spool.counts().checkpoints, unaccounted(spool)) == (1, (0, 0), 0)


def test_the_ledger_knows_the_numbers_of_the_spool_and_of_checkpoints_that_are_sent(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1), checkpoint(2), checkpoint(1, window=OTHER)])
    spool.append(whole())
    assert ledger_on_disk(disk.folder) == {spool.epoch: [Span(1, 1, State.WAITING)]}
    spool.promote([OTHER])
    assert ledger_on_disk(disk.folder)[OTHER] == [Span(1, 1, State.WAITING)]
    spool.acknowledge(spool.epoch, [1])
    assert ledger_on_disk(disk.folder)[spool.epoch] == [Span(1, 1, State.STORED)]


def test_checkpoints_of_a_window_that_memory_could_not_hold_are_sent(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1), checkpoint(1, window=OTHER)])
    spool.promote([WINDOW])
    assert sent(spool) == {(WINDOW, 1): b"1:part"}
    assert (spool.counts().checkpoints[0], unaccounted(spool)) == (1, 0)


# ---- the index is lost, so the names of the files decide


def test_an_index_that_is_lost_leaves_the_checkpoints_to_be_sent(disk: Rig) -> None:
    spool = disk.open()
    spool.append(checkpoint(1, b"a"))
    spool.close()
    lose_the_index(disk)
    again = disk.open()
    assert (sent(again), unaccounted(again)) == ({(WINDOW, 1): b"1:a"}, 0)


def test_an_index_that_is_lost_while_the_agent_runs_leaves_the_checkpoints_to_their_window(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1), checkpoint(1, window=OTHER)])
    spool.promote([OTHER])
    drop_table(disk, "totals")
    with pytest.raises(Transient, match="has been rebuilt"):
        spool.counts()
    assert (list(sent(spool)), spool.counts().checkpoints[0]) == ([(OTHER, 1)], 1)
    spool.append(whole())
    assert (sorted(sent(spool)), unaccounted(spool)) == (sorted([(OTHER, 1), (spool.epoch, 1)]), 0)


@pytest.mark.parametrize("torn", [False, True])
def test_of_a_window_that_is_whole_by_its_names_no_checkpoint_is_sent(disk: Rig, torn: bool) -> None:
    spool = disk.open()
    spool.append_all([checkpoint(1), checkpoint(2)])
    before = keep_files(disk)
    spool.writer.append(fragments(spool, b"one", b"two"), token="a")
    epoch = spool.epoch
    spool.close()
    bring_back({path: content[:-1] if torn else content for path, content in before.items()})
    lose_the_index(disk)
    again = disk.open()
    assert sorted(sent(again)) == [(epoch, 1), (epoch, 2)]
    assert (len(batch_files(disk.folder)), unaccounted(again)) == (2, 0)
    assert set(again.counts().lost) == {Reason.INDEX_DAMAGED}


@pytest.mark.parametrize("damage", ["gone", "cut short"])
@pytest.mark.parametrize("larger", ["fragments", "checkpoints"])
def test_of_a_window_that_is_not_whole_the_larger_is_sent_and_the_other_is_lost_by_name(
    disk: Rig, damage: str, larger: str
) -> None:
    """A power cut while the fragments were written has cost the index, too.  No fragment was ever sent."""
    spool = disk.open()
    spool.append_all([checkpoint(1, bytes(30)), checkpoint(2, bytes(30))])
    before = keep_files(disk)
    size = 100 if larger == "fragments" else 10
    spool.writer.append(fragments(spool, bytes(size), bytes(size), bytes(size)), token="a")
    epoch = spool.epoch
    spool.close()
    second = batch_files(disk.folder)[1]
    bring_back(before)
    if damage == "gone":
        second.unlink()
    else:
        second.write_bytes(bytes(3))
    lose_the_index(disk)
    again = disk.open()
    kept = {"fragments": [(epoch, 1), (epoch, 3)], "checkpoints": [(WINDOW, 1), (WINDOW, 2)]}
    assert sorted(sent(again)) == kept[larger]
    lost = {(loss[2], number) for loss in explained(again) if loss[3] for number in range(loss[3], (loss[4] or 0) + 1)}
    dropped = set(kept["checkpoints" if larger == "fragments" else "fragments"])
    assert lost == (dropped if damage == "gone" else dropped | {(epoch, 2)})
    assert unaccounted(again) == 0


def test_fragments_whose_others_have_arrived_are_sent(disk: Rig) -> None:
    spool = disk.open()
    spool.writer.append(fragments(spool, b"one", b"two", b"three"), token="a")
    epoch = spool.epoch
    spool.acknowledge(epoch, [2])
    spool.sweep()
    spool.close()
    lose_the_index(disk)
    assert sorted(sent(disk.open())) == [(epoch, 1), (epoch, 3)]


def test_a_file_that_is_not_whole_by_its_name_is_lost_by_name_where_the_index_is_lost(disk: Rig) -> None:
    spool = disk.open()
    spool.append_all([whole(), checkpoint(1, window=OTHER)])
    epoch = spool.epoch
    spool.close()
    for path in batch_files(disk.folder):
        path.write_bytes(path.read_bytes()[:-1])
    lose_the_index(disk)
    again = disk.open()
    assert (sent(again), unaccounted(again)) == ({}, 0)
    assert {(Reason.CORRUPT, 1, epoch, 1, 1), (Reason.CORRUPT, 1, OTHER, 1, 1)} <= set(explained(again))
    assert len(list((disk.folder / "quarantine").iterdir())) == 3


def test_the_removal_of_checkpoints_is_durable_before_a_fragment_is_removed(disk: Rig) -> None:
    spool = disk.open()
    spool.append(checkpoint(1))
    spool.append(whole())
    spool.acknowledge(spool.epoch, [1])
    disk.unsyncable = True
    spool.sweep()
    assert len(batch_files(disk.folder)) == 1
    disk.unsyncable = False
    spool.sweep()
    assert batch_files(disk.folder) == []


# ---- runs


def losses(spool: Store) -> list[Loss]:
    return [loss for _, loss in spool.unreported_losses(100)]


def begin(spool: Store, now_us: int, *, trusted: bool = True, **buses: str) -> None:
    spool.begin_run(buses, since_us=now_us, now_us=now_us, trusted=trusted)


def named(spool: Store) -> list[tuple[str, str | None, int | None, int | None]]:
    return [(loss.campaign, loss.bus, loss.first_t_us, loss.last_t_us) for loss in losses(spool)]


def test_a_run_that_did_not_end_well_lost_what_came_after_the_last_durable_frame(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, 5, can0="")
    assert losses(spool) == []
    spool.append(checkpoint(1, last_t_us=1_000))
    spool.append(checkpoint(2, last_t_us=LATE_US + 2_000))
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 9_000, can0="")
    (loss,) = losses(again)
    assert (loss.reason, loss.campaign, loss.bus) == (Reason.OPEN_WINDOW, "city", "can0")
    assert (loss.first_t_us, loss.last_t_us, loss.epoch) == (2_000, LATE_US + 9_000, again.epoch)


def test_a_run_that_stored_nothing_lost_what_came_since_it_began(disk: Rig) -> None:
    first = disk.open()
    begin(first, LATE_US + 5, can0="", can1="")
    first.close()
    spool = disk.open()
    begin(spool, LATE_US + 70, can2="")
    assert named(spool) == [("", "can0", 5, LATE_US + 70), ("", "can1", 5, LATE_US + 70)]


@pytest.mark.parametrize("ended", [False, True])
def test_nothing_was_lost_where_all_was_stored_or_the_sources_still_have_it(disk: Rig, ended: bool) -> None:
    spool = disk.open()
    begin(spool, 5, can0="ring 1")
    spool.append(checkpoint(1))
    if ended:
        spool.end_run()
    spool.close()
    again = disk.open()
    begin(again, 70, can0="ring 2" if ended else "ring 1")
    assert losses(again) == []


def test_a_ring_that_is_not_the_one_of_the_ended_run_does_not_have_its_frames(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, LATE_US + 5, can0="ring 1", can1="ring 2")
    spool.append(checkpoint(1, last_t_us=LATE_US + 20))
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 70, can0="ring 3", can1="ring 2")
    assert named(again) == [("city", "can0", 20, LATE_US + 70)]


def test_a_bus_that_is_no_longer_configured_lost_its_frames(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, LATE_US + 5, can0="ring 1", can1="ring 2")
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 70, can1="ring 2")
    assert named(again) == [("", "can0", 5, LATE_US + 70)]


def test_a_cut_soon_after_a_crash_costs_what_the_ring_still_held_of_the_run_before(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, LATE_US + 5, can0="ring 1")
    spool.append(checkpoint(1, last_t_us=LATE_US + 20))
    spool.close()
    crashed = disk.open()
    begin(crashed, LATE_US + 70, can0="ring 1")  # the ring still holds everything from 20 on
    crashed.close()
    cut = disk.open()
    begin(cut, LATE_US + 90, can0="ring 2")
    assert named(cut) == [("city", "can0", 20, LATE_US + 90)]


def test_a_campaign_that_has_stored_nothing_yet_is_named_too(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, LATE_US + 5, can0="")
    spool.writer.collect(["city", "doors"], 7)
    spool.append(checkpoint(1, last_t_us=LATE_US + 20))
    spool.writer.collect(["city", "doors", "new"], LATE_US + 30)
    spool.append(checkpoint(2, last_t_us=LATE_US + 40))
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 70, can0="")
    assert {(campaign, first) for campaign, _, first, _ in named(again)} == {("city", 40), ("doors", 5), ("new", 30)}


def test_a_clock_that_is_not_trusted_leaves_the_end_of_the_interval_open(disk: Rig) -> None:
    # The ended run may have set its clock to today after its last checkpoint, and the new clock shows 1970 again.
    spool = disk.open()
    begin(spool, 5, can0="")
    spool.append(checkpoint(1, last_t_us=LATE_US + 20))
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 70, trusted=False, can0="")
    assert named(again) == [("city", "can0", 20, None)]


@pytest.mark.parametrize("now_us", [0, 3, LATE_US + 19])
def test_a_clock_behind_the_ended_run_leaves_the_end_of_the_interval_open(disk: Rig, now_us: int) -> None:
    spool = disk.open()
    begin(spool, 5, can0="")
    spool.append(checkpoint(1, last_t_us=LATE_US + 20))
    spool.close()
    again = disk.open()
    begin(again, now_us, can0="")
    assert named(again) == [("city", "can0", 20, None)]
    again.close()
    third = disk.open()  # the second run did not end well either, and its loss is merged with the first
    begin(third, now_us + 1, can0="")
    third.record_losses([Loss(Reason.OPEN_WINDOW, bus="can0", campaign="city", first_t_us=1, last_t_us=9)])
    assert ("city", "can0", 1, None) in named(third)
