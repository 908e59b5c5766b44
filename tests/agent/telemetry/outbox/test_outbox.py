"""The outbox over a real spool keeps order, bounds its memory, and reports each loss exactly once."""

import json
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.campaign import Campaign, parse_campaign
from agent.formats.up.acks import Refusal
from agent.formats.up.columns import Event
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.outbox import TOGETHER
from agent.telemetry.outbox.reporter import EVENTS_AT_ONCE, EVENTS_HELD
from agent.telemetry.spool.index import Index
from tests.agent.formats.up.windows import window as make_window
from tests.agent.telemetry.outbox.contents import put, put_checkpoint, starts, window
from tests.agent.telemetry.spool.depot import Depot


def test_windows_are_stored_in_order_and_empty_ones_are_not(depot: Depot) -> None:
    put(depot, window(1), make_window(), window(2))
    put(depot, window(3))
    assert starts(depot) == [1, 2, 3]
    assert (depot.outbox.samples, depot.outbox.batches) == (300, 3)


def test_a_disk_that_refuses_keeps_everything_in_memory_and_in_order(depot: Depot) -> None:
    put(depot, window(1))
    depot.disk.full = True
    put(depot, window(2))
    put(depot, window(3))
    assert depot.outbox.problem is not None
    assert "No space left" in depot.outbox.problem
    assert depot.outbox.pending_bytes > 0
    assert starts(depot) == [1]
    assert not depot.outbox.delivered()
    depot.disk.full = False
    put(depot, window(4))
    assert (depot.outbox.problem, depot.outbox.pending_bytes) == (None, 0)
    assert starts(depot) == [1, 2, 3, 4]
    assert depot.lost() == {}


def test_what_memory_cannot_hold_goes_oldest_first_and_is_counted(tmp_path: Path) -> None:
    limit = 10_000
    depot = Depot(tmp_path, pending_max_bytes=limit)
    depot.disk.full = True
    for number in range(1, 21):
        put(depot, window(number, samples=1_000))
        assert depot.outbox.pending_bytes <= limit
    depot.disk.full = False
    depot.outbox.flush()
    kept = starts(depot)
    assert kept == list(range(21 - len(kept), 21))
    assert 0 < len(kept) < 20
    assert depot.lost() == {Reason.MEMORY_FULL: 1_000 * (20 - len(kept))}
    told = [event.fields for event in depot.events("loss")]
    assert [fields["samples"] for fields in told] == [1_000 * (20 - len(kept))]
    assert told[0]["first_t_us"] == 1


def test_positions_move_over_what_was_lost_only_when_the_ledger_has_it(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    depot.disk.full = True
    for number in (1, 2):
        late = window(number, samples=1_000)
        depot.outbox.put([(late, 1)], {late.campaign: {"log:all": number}})
    depot.disk.full, depot.ledger.refuses = False, True
    depot.outbox.flush()
    assert (depot.spool.resume_points(), depot.windows()) == ({}, [])
    depot.ledger.refuses = False
    depot.outbox.flush()
    assert depot.spool.resume_points() == {"log:all": 2}
    assert depot.lost() == {Reason.MEMORY_FULL: 1_000}


def test_a_loss_and_the_positions_past_its_frames_are_recorded_together(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    for number in (1, 2):
        if number == 2:
            assert put_checkpoint(depot, window(number, samples=400))
            depot.disk.full = True
        late = window(number, samples=1_000)
        depot.outbox.put([(late, 1)], {late.campaign: {"log:all": number}})
    late = window(3, samples=1_000)
    depot.outbox.put([(late, 1)], {late.campaign: {"log:all": 3}})
    depot.outbox.flush()  # the index works, but no file can be made, so the third window still waits
    depot.spool.close()  # a crash: the log is read again from the resume point
    again = Depot(tmp_path)
    assert again.lost() == {Reason.MEMORY_FULL: 600}
    assert [(w.start_us, w.samples) for w in again.windows() if w.samples] == [(1, 1_000), (2, 400)]
    assert again.spool.resume_points()["log:all"] == 2


def test_a_window_larger_than_all_memory_is_kept(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=10)
    depot.disk.full = True
    put(depot, window(1))
    depot.disk.full = False
    depot.outbox.flush()
    assert starts(depot) == [1]


def test_a_window_that_is_cut_counts_its_samples_once(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=6_000)
    put(depot, window(1, samples=20_000))
    counts = depot.spool.counts()
    assert counts.batches > 3
    assert depot.outbox.samples == 20_000
    entries = depot.spool.pending(100, exclude=(), lanes=list(counts.lanes))
    depot.spool.refuse(counts.epoch, {entry.seq: Refusal("no", entry.sealed.digest) for entry in entries})
    assert depot.lost() == {Reason.REFUSED_BY_RECEIVER: 20_000}


def test_each_batch_of_a_window_that_is_cut_is_lost_with_its_own_samples(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=6_000)
    put(depot, window(1, samples=20_000))
    _, second, *_ = depot.spool.pending(100, exclude=(), lanes=list(depot.spool.counts().lanes))
    depot.spool.refuse(depot.spool.epoch, {second.seq: Refusal("no", second.sealed.digest)})
    left = sum(each.samples for each in depot.windows())
    assert 0 < left < 20_000
    assert depot.lost() == {Reason.REFUSED_BY_RECEIVER: 20_000 - left}


def test_a_cut_window_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=6_000)
    depot.disk.full = True
    put(depot, window(1, samples=20_000))
    assert depot.spool.counts().batches == 0
    depot.disk.full = False
    depot.outbox.flush()
    assert sum(each.samples for each in depot.windows()) == 20_000


def test_each_loss_is_told_exactly_once(depot: Depot) -> None:
    depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5))
    depot.outbox.flush()
    depot.outbox.flush()
    depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=7))
    depot.outbox.flush()
    assert [event.fields["frames"] for event in depot.events("loss")] == [5, 7]
    assert depot.recorded() == []


def test_a_loss_whose_telling_could_not_be_stored_is_told_once_all_the_same(depot: Depot) -> None:
    depot.disk.full = True
    for frames in (5, 7, 9):
        depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus=f"can{frames}", frames=frames))
        depot.outbox.flush()
    depot.disk.full = False
    depot.outbox.flush()
    depot.outbox.flush()
    assert Counter(event.fields["frames"] for event in depot.events("loss")) == {5: 1, 7: 1, 9: 1}


def test_a_loss_that_was_told_in_a_batch_that_memory_dropped_is_told_again(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=2_000)
    depot.disk.full = True
    depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5))
    depot.outbox.flush()  # the batch that reports the loss waits in memory
    for number in range(3):
        put(depot, window(number, samples=2_000))
    depot.disk.full = False
    depot.outbox.flush()
    depot.outbox.flush()
    told = [event.fields for event in depot.events("loss") if event.fields["reason"] == Reason.BUS_OVERFLOW]
    assert [fields["frames"] for fields in told] == [5]


def test_losses_that_the_ledger_does_not_take_are_counted_on(depot: Depot) -> None:
    depot.ledger.refuses = True
    for _ in range(3):
        depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5))
        depot.outbox.flush()
    assert depot.outbox.problem is not None
    assert "the ledger is out of reach" in depot.outbox.problem
    depot.ledger.refuses = False
    depot.outbox.flush()
    assert sum(int(event.fields["frames"]) for event in depot.events("loss")) == 15
    assert depot.spool.counts().lost[Reason.BUS_OVERFLOW].frames == 15


def test_events_keep_their_order_over_as_many_batches_as_they_need(depot: Depot) -> None:
    count = EVENTS_AT_ONCE + 10
    for number in range(count):
        depot.outbox.add_event(Event(number, "push_applied", {"version": number}))
    depot.outbox.flush()
    depot.outbox.flush()
    assert [event.fields["version"] for event in depot.events()] == list(range(count))


def test_events_that_nobody_can_store_are_bounded_and_counted(depot: Depot) -> None:
    for number in range(EVENTS_HELD + 3):
        depot.outbox.add_event(Event(number, "push_refused", {}))
    while depot.outbox.delivered() is False and len(depot.events("push_refused")) < EVENTS_HELD:
        pass
    depot.outbox.flush()
    assert len(depot.events("push_refused")) == EVENTS_HELD
    losses = depot.events("loss")
    assert {event.fields["reason"] for event in losses} == {Reason.MEMORY_FULL}
    assert {event.fields["lane"] for event in losses} == {"events"}


def test_what_is_added_does_not_wait_for_a_disk_that_hangs(depot: Depot) -> None:
    depot.disk.free.clear()
    storing = threading.Thread(target=put, args=(depot, window(1)))
    storing.start()
    adding = threading.Thread(
        target=lambda: (
            depot.outbox.add_event(Event(1, "agent_started", {})),
            depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=1)),
        )
    )
    adding.start()
    adding.join(5)
    waited = adding.is_alive()
    depot.disk.free.set()
    storing.join(10)
    assert not waited
    depot.outbox.flush()
    assert {event.kind for event in depot.events()} == {"agent_started", "loss"}


def test_positions_are_stored_with_the_window_that_reaches_them(depot: Depot) -> None:
    depot.outbox.put([(window(1), 0)], {"drive": {"can0:drive": 42}})
    assert depot.spool.resume_points() == {"can0:drive": 42}
    depot.disk.full = True
    depot.outbox.put([(window(2), 0)], {"drive": {"can0:drive": 99}})
    assert depot.spool.resume_points() == {"can0:drive": 42}


def test_delivered_means_that_nothing_waits_anywhere(depot: Depot) -> None:
    assert depot.outbox.delivered()
    put(depot, window(1))
    depot.outbox.add_event(Event(1, "agent_started", {}))
    assert not depot.outbox.delivered()
    depot.spool.acknowledge(depot.spool.epoch, [1, 2])
    assert depot.outbox.delivered()


_NUMBERS = st.integers() | st.sampled_from([0, 2**31 - 1, 2**31, 2**40, 2**63, 2**64])
_DOCUMENTS = st.fixed_dictionaries(
    {
        "name": st.text("aZ9-_:", min_size=1, max_size=100),
        "collectionScheme": st.just({"timeBasedCollectionScheme": {"periodMs": 10_000}}),
        "signalsToCollect": st.just([{"name": "*"}]),
    },
    optional={"priority": _NUMBERS, "startTime": _NUMBERS, "expiryTime": _NUMBERS},
)


@settings(max_examples=10, deadline=None)
@given(st.lists(_DOCUMENTS, min_size=20, max_size=20))
def test_whatever_campaign_is_accepted_its_windows_can_be_stored(documents: list[dict[str, Any]]) -> None:
    accepted: list[Campaign] = []
    for document in documents:
        with suppress(Permanent):
            accepted.append(parse_campaign(json.dumps(document).encode(), "any.json"))
    with tempfile.TemporaryDirectory() as folder:
        depot = Depot(Path(folder))
        depot.outbox.put((window(1, samples=2), campaign.priority) for campaign in accepted)
        assert depot.spool.counts().batches == len(accepted)
        depot.spool.close()


def test_windows_that_close_together_share_a_transaction(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    monkeypatch.setattr(Index, "commit", lambda index: (commits.append(1), index._db.execute("COMMIT"))[1])
    depot.outbox.put([(window(n), 0) for n in range(TOGETHER + 1)], {"drive": {"can0:drive": 42}})
    assert starts(depot) == list(range(TOGETHER + 1))
    assert depot.spool.resume_points() == {"can0:drive": 42}
    assert len(commits) == 2


def test_each_loss_depends_on_the_batch_alone_that_tells_it(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=4_096)
    depot.spool.record_losses(
        Loss(Reason.BUS_OVERFLOW, bus="can0", detail=f"{n * 7**60:x}", frames=1) for n in range(200)
    )
    depot.outbox.flush()
    told = {entry.seq: window for entry, window in zip(depot.entries(), depot.windows(), strict=True)}
    assert len(told) > 1
    arrived, *_ = told
    depot.spool.acknowledge(depot.spool.epoch, [arrived])
    lost = [entry for entry in depot.entries() if entry.seq != arrived]
    depot.spool.refuse(depot.spool.epoch, {entry.seq: Refusal("lost", entry.sealed.digest) for entry in lost})
    again = [id_ for id_, loss in depot.spool.unreported_losses(-1) if loss.reason is Reason.BUS_OVERFLOW]
    assert again == [event.fields["id"] for seq, window in told.items() if seq != arrived for event in window.events]
    assert again
