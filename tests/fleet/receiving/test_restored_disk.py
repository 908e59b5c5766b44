"""A disk that is put back uses sequence numbers again.  Nothing is lost, nothing is stored twice, the fleet is told."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from agent.formats import telemetry_pb2 as pb
from agent.system.times import utc_text_of
from fleet.lake.ledger import ledger
from fleet.lake.query import ask
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.restored import HeadUnit, deliver, windows_in
from tests.fleet.vehicles import T0_US, Vehicle


def test_what_is_collected_after_a_disk_was_put_back_reaches_the_lake(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.collect(1, 2)
    unit.hear(*deliver(store, unit))
    unit.copy(tmp_path / "image")
    unit.collect(3, 4)
    unit.hear(*deliver(store, unit))
    unit.put_back(tmp_path / "image")
    unit.collect(5, 6)  # under the numbers 3 and 4
    unit.hear(*deliver(store, unit))
    assert unit.waiting() == []
    assert windows_in(fleet.lake) == dict.fromkeys(range(1, 7), 2)


def test_old_acknowledgements_acknowledge_nothing_else(vehicle: Vehicle, store: Store, tmp_path: Path) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.copy(tmp_path / "image")
    unit.collect(1, 2)
    acks = deliver(store, unit)
    unit.put_back(tmp_path / "image")
    unit.collect(3, 4)  # under the same numbers
    kept = unit.waiting()
    unit.hear(*acks)
    assert unit.waiting() == kept


def test_what_waited_on_the_disk_when_it_was_copied_is_stored_once(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.collect(1, 2)
    unit.copy(tmp_path / "image")
    unit.hear(*deliver(store, unit))
    unit.put_back(tmp_path / "image")
    unit.hear(*deliver(store, unit))
    assert unit.waiting() == []
    assert windows_in(fleet.lake) == {1: 2, 2: 2}
    assert store.totals.duplicates == 2


def test_two_head_units_with_one_identity_are_both_stored_and_the_fleet_is_told_once(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.copy(tmp_path / "copy")
    clone = HeadUnit(vehicle, tmp_path / "copy")
    with structlog.testing.capture_logs() as logs:
        for number in range(1, 9, 2):
            unit.collect(number)
            clone.collect(number + 1)
            acks = [*deliver(store, unit), *deliver(store, clone)]  # both hear all answers
            unit.hear(*acks)
            clone.hear(*acks)
    assert unit.waiting() == clone.waiting() == []
    assert windows_in(fleet.lake) == dict.fromkeys(range(1, 9), 2)
    assert [entry["seq"] for entry in logs if entry["event"] == "epoch_forked"] == [1]
    assert [entry["seq"] for entry in logs if entry["event"] == "ack_of_other_batches"] == [1]
    (batches,) = ask(str(fleet.lake), "batches").rows
    assert dict(zip(ask(str(fleet.lake), "batches").columns, batches, strict=True))["forked"] == 4


def test_the_ledger_names_the_numbers_that_two_batches_have(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.collect(1)
    unit.hear(*deliver(store, unit))
    unit.copy(tmp_path / "image")
    unit.collect(2, 3)
    deliver(store, unit)
    unit.put_back(tmp_path / "image")
    unit.collect(4, 5, 6)
    deliver(store, unit)
    answer = ledger(str(fleet.lake), limit=10, stored=True)
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    assert [(row["state"], row["first_seq"], row["last_seq"], row["batches"]) for row in rows] == [
        ("stored", 1, 4, 4),
        ("forked", 2, 3, 2),
    ]


def test_a_loss_is_told_although_a_loss_before_the_restore_has_its_id_and_its_number(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    """After a restore, ids of losses are used again as well, and a lost batch may have the number of a stored one."""
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.copy(tmp_path / "image")
    unit.collect(1)
    unit.lose(next(entry for entry in unit.pending() if entry.seq == 1))
    unit.report()
    deliver(store, unit)
    unit.put_back(tmp_path / "image")
    unit.collect(2, 3)  # the number of the lost batch, and that of the report
    unit.lose(next(entry for entry in unit.pending() if entry.seq == 2))
    unit.report()
    unit.collect(4)
    deliver(store, unit)
    answer = ledger(str(fleet.lake), limit=10, stored=False)
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    assert sorted(str(row["first"]) for row in rows if row["state"] == "lost") == [
        utc_text_of(T0_US + number * 1_000_000) for number in (1, 3)
    ]


@pytest.mark.parametrize("checkpoint_first", [False, True])
def test_the_ledger_lists_the_checkpoints_whose_window_is_in_the_lake_too(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path, checkpoint_first: bool
) -> None:
    """An image of a running agent has checkpoints of windows that the agent closes and sends later."""
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.checkpoint(1)
    shutil.copytree(unit.folder, tmp_path / "image")
    unit.close_windows()
    clone = HeadUnit(vehicle, tmp_path / "image")
    for each in (clone, unit) if checkpoint_first else (unit, clone):
        deliver(store, each)
    assert windows_in(fleet.lake) == {1: 3}  # the window has two samples, and the checkpoint has one of them
    answer = ledger(str(fleet.lake), limit=10, stored=False)
    (row,) = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    assert (row["state"], row["batches"], row["samples"]) == ("twice", 1, 2)  # one sample of each of two signals


def test_a_batch_that_was_taken_long_ago_is_looked_up_in_the_lake(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.copy(tmp_path / "image")
    unit.collect(1, 2, 3)
    old = unit.waiting()
    with closing(open_store(fleet, Share())) as store:
        deliver(store, unit)
    with closing(sqlite3.connect(fleet.inbox)) as inbox, inbox:
        inbox.execute("DELETE FROM recent")
    unit.put_back(tmp_path / "image")
    unit.collect(4)
    with closing(open_store(fleet, Share())) as store:
        unit.hear(*deliver(store, unit, [*old, *unit.waiting()]))
        assert (store.totals.duplicates, store.totals.batches) == (3, 1)
    assert unit.waiting() == []
    assert windows_in(fleet.lake) == dict.fromkeys(range(1, 5), 2)


def test_an_inbox_that_is_rebuilt_knows_digests_and_forks(fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path) -> None:
    unit = HeadUnit(vehicle, tmp_path / "spool")
    unit.copy(tmp_path / "image")
    unit.collect(1)
    sent = unit.waiting()
    unit.put_back(tmp_path / "image")
    unit.collect(2)
    sent += unit.waiting()
    with closing(open_store(fleet, Share())) as store:
        deliver(store, unit, sent)
    fleet.inbox.unlink()
    unit.put_back(tmp_path / "image")
    unit.collect(3)
    with closing(open_store(fleet, Share())) as store, structlog.testing.capture_logs() as logs:
        deliver(store, unit, [*sent, *unit.waiting()])
        assert (store.totals.duplicates, store.totals.batches) == (2, 1)
    assert "epoch_forked" not in {entry["event"] for entry in logs}
    assert windows_in(fleet.lake) == {1: 2, 2: 2, 3: 2}


def test_a_broker_cannot_make_two_batches_of_one(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    """Protobuf reads many encodings of one envelope, and each of them would have another digest."""
    batch = vehicle.batch(1)
    parsed = pb.Envelope.FromString(batch)
    swapped = (
        pb.Envelope(ciphertext=parsed.ciphertext).SerializeToString()
        + pb.Envelope(header=parsed.header).SerializeToString()
    )
    others = [swapped, batch + b"\x1a\x00", batch + batch, pb.Envelope(header=b"x").SerializeToString() + batch]
    for other in others:
        store.take_in([Message(vehicle.topic, batch), Message(vehicle.topic, other)])
        store.land()
    assert store.totals.batches == 1
    assert store.totals.unanswered == len(others)
