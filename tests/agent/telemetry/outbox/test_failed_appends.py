"""An append that fails and may have happened all the same doubles nothing and loses nothing."""

from pathlib import Path

import pytest

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from tests.agent.telemetry.outbox.contents import put, put_checkpoint, starts, window
from tests.agent.telemetry.spool.depot import Depot


@pytest.mark.parametrize("landed", [False, True])
def test_a_window_is_stored_once_whether_a_failed_append_happened_or_not(depot: Depot, landed: bool) -> None:
    depot.ledger.fail_commits(1, done=landed)
    put(depot, window(1))
    assert depot.outbox.problem is not None
    put(depot, window(2))
    assert (starts(depot), depot.outbox.problem, depot.outbox.pending_bytes) == ([1, 2], None, 0)
    assert (depot.outbox.samples, depot.outbox.batches, depot.lost()) == (200, 2, {})


@pytest.mark.parametrize("landed", [False, True])
def test_what_memory_drops_of_a_failed_append_is_lost_only_where_it_did_not_happen(
    tmp_path: Path, landed: bool
) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    depot.ledger.fail_commits(1, done=landed)
    put(depot, window(1))
    depot.ledger.fails = True
    put(depot, window(2))  # the fate of the first is unknown, and memory holds only one
    depot.ledger.fails = False
    depot.outbox.flush()
    assert starts(depot) == ([1, 2] if landed else [2])
    assert depot.lost() == ({} if landed else {Reason.MEMORY_FULL: 100})
    assert depot.outbox.samples == (200 if landed else 100)


def test_what_memory_drops_while_an_older_append_is_in_doubt_does_not_come_again(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    depot.ledger.fail_commits(1, done=False)
    for number in (1, 2, 3):
        late = window(number, samples=100)
        depot.outbox.put([(late, 1)], {late.campaign: {"log:all": number}})
        depot.ledger.fails = True
    depot.ledger.fails, depot.disk.full = False, True  # the index works, but no file can be made
    depot.outbox.flush()
    depot.spool.close()
    again = Depot(tmp_path)
    assert (again.lost(), again.spool.resume_points()) == ({Reason.MEMORY_FULL: 200}, {"log:all": 2})


@pytest.mark.parametrize("landed", [False, True])
def test_a_loss_is_recorded_once_whether_a_failed_record_was_made_or_not(depot: Depot, landed: bool) -> None:
    depot.outbox.add_loss(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=5))
    depot.ledger.fail_commits(1, done=landed)
    depot.outbox.flush()
    assert depot.outbox.problem is not None
    depot.outbox.flush()
    assert [event.fields["frames"] for event in depot.events("loss")] == [5]


@pytest.mark.parametrize("stored", [0, 100])
@pytest.mark.parametrize("landed", [False, True])
def test_a_checkpoint_of_a_failed_append_is_not_sent_beside_the_loss_of_its_samples(
    tmp_path: Path, landed: bool, stored: int
) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    if stored:
        assert put_checkpoint(depot, window(1, samples=stored))
    depot.ledger.fail_commits(1, done=landed)
    assert not put_checkpoint(depot, window(1, samples=200))
    depot.disk.full = True
    put(depot, window(1, samples=1_000))
    put(depot, window(2, samples=1_000))
    depot.disk.full = False
    depot.outbox.flush()
    depot.spool.close()
    again = Depot(tmp_path)
    assert [w.samples for w in again.windows() if w.samples] == ([stored] if stored else []) + [1_000]
    assert again.lost() == {Reason.MEMORY_FULL: 1_000 - stored}


@pytest.mark.parametrize("landed", [False, True])
def test_a_checkpoint_of_a_failed_append_is_never_doubled(tmp_path: Path, landed: bool) -> None:
    depot = Depot(tmp_path)
    depot.ledger.fail_commits(1, done=landed)
    assert not put_checkpoint(depot, window(1, samples=100))
    assert put_checkpoint(depot, window(1, samples=150))
    depot.spool.close()
    assert [each.samples for each in Depot(tmp_path).windows()] == [150]
