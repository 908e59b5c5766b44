"""What restored disks leave behind is counted, and is wrong if the lake or its ledger is."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from fleet.lake.opened_batch import OpenedBatch
from tests.faults.restored import (
    PutBack,
    digests,
    gone,
    join,
    leave_out,
    numbers,
    repeated,
    samples_of,
    twice,
)
from tests.faults.schedule import Restored
from tests.faults.verdict import Ledger
from tests.fleet.lake.test_ledger import VEHICLE, batch, fill, told
from tests.fleet.vehicles import EPOCH, T0_US

WINDOW = "f" * 32
LATER_US = T0_US + 100_000_000


def lake(folder: Path, name: str, *batches: OpenedBatch) -> Path:
    fill(str(folder / name), *batches)
    return folder / name


def checkpoint(seq: int) -> OpenedBatch:
    found = batch(seq)
    return replace(found, header=replace(found.header, epoch=WINDOW), digest=b"c%015d" % seq)


def window(seq: int) -> OpenedBatch:
    found = batch(seq)
    return replace(found, window=replace(found.window, id=WINDOW))


def of_another_vehicle(seq: int) -> OpenedBatch:
    found = batch(seq)
    return replace(found, header=replace(found.header, vehicle=VEHICLE[::-1]), digest=b"o%015d" % seq)


def test_lakes_are_joined_so_that_each_batch_of_the_vehicle_is_there_once(tmp_path: Path) -> None:
    last = lake(tmp_path, "last", batch(1), batch(3), of_another_vehicle(9))
    replaced = lake(tmp_path, "replaced", batch(1), batch(2))
    joined = join([last, replaced], VEHICLE, tmp_path / "joined")
    assert numbers(joined) == {(VEHICLE, EPOCH, seq) for seq in (1, 2, 3)}
    assert samples_of(joined, digests([joined], VEHICLE)).num_rows == 60
    assert digests([joined], VEHICLE) == digests([last, replaced], VEHICLE)


def test_batches_are_repeated_if_they_are_older_than_the_restored_disk_and_new_to_the_lake(tmp_path: Path) -> None:
    early = lake(tmp_path, "early", batch(1))
    last = lake(tmp_path, "last", batch(1), checkpoint(2), batch(200))
    put_back = PutBack(Restored.VEHICLE, LATER_US, digests([early], VEHICLE))
    again = repeated(last, VEHICLE, [put_back])
    assert again == {checkpoint(2).digest.hex()}
    once = leave_out(last, VEHICLE, again, [put_back], tmp_path / "once")
    assert numbers(once) == {(VEHICLE, EPOCH, 1), (VEHICLE, EPOCH, 200)}


def test_a_loss_of_samples_that_were_accounted_for_before_the_disk_was_put_back_counts_once(tmp_path: Path) -> None:
    def lost(samples: int, last_t_us: int) -> Loss:
        return Loss(Reason.EVICTED_QUOTA, Lane.LIVE, samples=samples, first_t_us=T0_US, last_t_us=last_t_us)

    early = lake(tmp_path, "early", batch(1, told(lost(20, T0_US + 5))))
    again, new = told(lost(13, T0_US + 3)), told(lost(7, LATER_US + 5))
    last = lake(tmp_path, "last", batch(1, told(lost(20, T0_US + 5))), batch(2, again), batch(3, new))
    put_back = PutBack(Restored.VEHICLE, LATER_US, digests([early], VEHICLE))
    once = leave_out(last, VEHICLE, set(), [put_back], tmp_path / "once")
    assert Ledger.read(str(once)).lost == {"evicted_quota": 27}


def test_a_lost_batch_of_events_stays_explained_although_a_clock_was_set_back(tmp_path: Path) -> None:
    events = Loss(Reason.EVICTED_QUOTA, Lane.EVENTS, epoch=EPOCH, batches=1, first_seq=2, last_seq=2, last_t_us=T0_US)
    last = lake(tmp_path, "last", batch(1), batch(3, told(events)))
    put_back = PutBack(Restored.VEHICLE, LATER_US, frozenset())
    once = leave_out(last, VEHICLE, set(), [put_back], tmp_path / "once")
    assert Ledger.read(str(once)).unexplained_batches == 0


@pytest.mark.parametrize(("sent", "listed"), [(window(1), 20), (batch(1), 0)])
def test_checkpoints_are_there_twice_if_their_window_is_here(tmp_path: Path, sent: OpenedBatch, listed: int) -> None:
    last = lake(tmp_path, "last", sent, checkpoint(1))
    assert twice(last, VEHICLE, {checkpoint(1).digest.hex()}) == (listed, listed)
    assert twice(last, VEHICLE, set()) == (listed, 0)


def test_batches_that_are_gone_with_a_lake_must_be_open_in_the_ledger_of_the_last_lake(tmp_path: Path) -> None:
    replaced = lake(tmp_path, "replaced", batch(1), batch(2), batch(3))
    last = lake(tmp_path, "last", batch(1), batch(4))
    joined = join([last, replaced], VEHICLE, tmp_path / "joined")
    assert gone(last, joined, VEHICLE) == (2, 0)


def test_a_number_that_is_open_and_was_in_no_lake_is_found(tmp_path: Path) -> None:
    last = lake(tmp_path, "last", batch(1), batch(4))
    joined = join([last, lake(tmp_path, "replaced", batch(1), batch(2))], VEHICLE, tmp_path / "joined")
    assert gone(last, joined, VEHICLE) == (1, 1)


def test_a_number_whose_report_is_gone_may_be_open(tmp_path: Path) -> None:
    evicted = Loss(Reason.EVICTED_QUOTA, Lane.LIVE, batches=1, samples=20, first_seq=2, last_seq=2)
    replaced = lake(tmp_path, "replaced", batch(1), batch(3, told(evicted)))
    last = lake(tmp_path, "last", batch(1), batch(4))
    joined = join([last, replaced], VEHICLE, tmp_path / "joined")
    assert gone(last, joined, VEHICLE) == (1, 0)
