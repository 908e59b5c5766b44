"""Test the lake's ledger on real Delta tables."""

from dataclasses import replace

from agent.formats.topics import Lane
from agent.formats.up.columns import Event, Window
from agent.formats.up.losses import Reason
from agent.formats.up.seal import Header
from agent.telemetry.losses import Loss, to_event
from fleet.lake.ledger import COLUMNS, ledger
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.rows import rows_of
from fleet.lake.tables import Lake
from tests.fleet.vehicles import EPOCH, T0_US, make_window

VEHICLE = "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11"


def batch(seq: int, events: tuple[Event, ...] = ()) -> OpenedBatch:
    header = Header(VEHICLE, EPOCH, seq, Lane.LIVE, "0" * 16, "X25519", T0_US)
    window: Window = replace(make_window(seq), events=events)
    return OpenedBatch(header, window, 100, T0_US, b"%016d" % seq)


def told(*losses: Loss, first_id: int = 1) -> tuple[Event, ...]:
    return tuple(to_event(id_, replace(loss, epoch=EPOCH), T0_US) for id_, loss in enumerate(losses, first_id))


def fill(uri: str, *batches: OpenedBatch) -> None:
    lake = Lake(uri)
    for number, each in enumerate(batches, 1):
        for table in ("samples", "events", "batches"):
            lake.append(table, "test", number, [rows_of(each)])


def rows(uri: str, *, stored: bool = True) -> list[dict[str, object]]:
    answer = ledger(uri, limit=100, stored=stored)
    return [dict(zip(COLUMNS, row, strict=True)) for row in answer.rows]


def numbers(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(row["first_seq"], row["last_seq"], row["state"], row["reason"]) for row in found]


def test_every_number_is_stored_lost_with_its_reason_or_open(lake: str) -> None:
    quota = Loss(Reason.EVICTED_QUOTA, Lane.LIVE, None, "drive", "", "", 2, 40, 0, 3, 4, T0_US, T0_US + 5)
    fill(lake, batch(1), batch(2), batch(6, told(quota)), batch(8))
    found = rows(lake)
    assert numbers(found) == [
        (1, 2, "stored", None),
        (3, 4, "lost", "evicted_quota"),
        (5, 5, "open", "not here, not explained"),
        (6, 6, "stored", None),
        (7, 7, "open", "not here, not explained"),
        (8, 8, "stored", None),
    ]
    assert (found[1]["lane"], found[1]["batches"], found[1]["samples"]) == ("live", 2, 40)
    assert found[1]["first"] == "2025-10-09 08:53:20Z"
    assert numbers(rows(lake, stored=False)) == numbers([found[1], found[2], found[4]])


def test_losses_of_frames_have_no_numbers_and_are_listed(lake: str) -> None:
    fill(lake, batch(1, told(Loss(Reason.BUS_OVERFLOW, bus="can0", frames=17))))
    (row,) = rows(lake, stored=False)
    assert (row["first_seq"], row["batches"], row["frames"], row["bus"]) == (None, 0, 17, "can0")


def test_what_nobody_counted_is_not_said_to_be_nothing(lake: str) -> None:
    fill(lake, batch(1), batch(3))  # 2 stays unexplained
    assert [(row["state"], row["samples"], row["frames"]) for row in rows(lake)] == [
        ("stored", None, None),
        ("open", None, None),
        ("stored", None, None),
    ]


def test_a_batch_that_arrived_although_it_was_given_up_is_no_loss(lake: str) -> None:
    refused = Loss(Reason.REFUSED_BY_RECEIVER, Lane.LIVE, batches=1, samples=20, first_seq=1, last_seq=1)
    fill(lake, batch(1), batch(2, told(refused)))
    assert rows(lake, stored=False) == []


def test_what_a_vehicle_lost_after_its_last_batch_that_came_is_known_from_its_report(lake: str) -> None:
    aged = Loss(Reason.EVICTED_AGE, Lane.LIVE, batches=1, samples=20, first_seq=3, last_seq=3)
    fill(lake, batch(1), batch(2, told(aged)))
    assert numbers(rows(lake)) == [(1, 2, "stored", None), (3, 3, "lost", "evicted_age")]


def test_a_loss_that_is_told_in_two_batches_counts_once(lake: str) -> None:
    full, other = Loss(Reason.MEMORY_FULL, samples=40), Loss(Reason.MEMORY_FULL, samples=40)
    fill(lake, batch(1, told(full)), batch(2, told(full, other)))
    assert [row["samples"] for row in rows(lake, stored=False)] == [40, 40]


def test_a_loss_of_another_life_of_the_spool_is_another_loss(lake: str) -> None:
    again = batch(1, told(Loss(Reason.MEMORY_FULL, samples=40)))
    fill(lake, again, replace(again, header=replace(again.header, epoch="e" * 32)))
    assert [row["samples"] for row in rows(lake, stored=False)] == [40, 40]


def test_checkpoints_that_a_crash_left_are_an_epoch_of_their_own(lake: str) -> None:
    """The checkpoints of each window are numbered from 1.  A batch of another epoch reports a lost one."""
    window = "d" * 32
    evicted = Loss(Reason.EVICTED_QUOTA, Lane.LIVE, batches=1, samples=20, first_seq=2, last_seq=2, epoch=window)
    first, third = (replace(batch(seq), header=replace(batch(seq).header, epoch=window)) for seq in (1, 3))
    fill(lake, first, third, batch(1, (to_event(1, evicted, T0_US),)))
    found = [row for row in rows(lake) if row["epoch"] == window]
    assert numbers(found) == [(1, 1, "stored", None), (2, 2, "lost", "evicted_quota"), (3, 3, "stored", None)]
