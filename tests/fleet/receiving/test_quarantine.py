"""The quarantine keeps evidence of every vehicle, whatever another one sends."""

from pathlib import Path

from structlog.testing import capture_logs

from fleet.receiving.message import Message
from fleet.receiving.quarantine import MOST, Quarantine
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import Vehicle


def test_the_quarantine_keeps_the_newest_within_its_quota_and_the_same_bytes_once(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, quota_files=3)
    for i in (0, 1, 2, 2, 3, 4):
        quarantine.keep(Message("t", b"batch %d" % i), reason=f"reason {i}", received_at_us=i)
    assert {path.read_bytes() for path in tmp_path.glob("*.sealed")} == {b"batch 2", b"batch 3", b"batch 4"}
    assert len(list(tmp_path.glob("*.json"))) == 3
    Quarantine(tmp_path, quota_files=3).keep(Message("t", b"batch 5"), reason="r", received_at_us=5)
    assert len(list(tmp_path.iterdir())) == 6


def rubbish(vehicle: str, number: int) -> Message:
    return Message(f"hu/v1/up/0/{vehicle}/live", b"%d" % number)


def test_a_vehicle_that_sends_rubbish_displaces_only_its_own(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, quota_files=10)
    quarantine.keep(rubbish("honest", 1), reason="r", received_at_us=1)
    for number in range(2, 40):
        quarantine.keep(rubbish("flood", number), reason="r", received_at_us=number)
    again = Quarantine(tmp_path, quota_files=10)
    for number in range(40, 60):
        again.keep(rubbish("flood", number), reason="r", received_at_us=number)
    kept = {int(path.read_bytes()) for path in tmp_path.glob("*.sealed")}
    assert kept == {1, *range(51, 60)}


def test_a_batch_that_the_quarantine_does_not_keep_is_not_refused(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    """A vehicle deletes what is refused, so the quarantine would have been the last place that has the batch."""
    count = MOST + 10
    store.take_in([Message(vehicle.topic, vehicle.sealed(seq, b"no body %d" % seq)) for seq in range(1, count + 1)])
    (answer,) = store.land()
    assert len(vehicle.verify(answer.payload).refused) == MOST
    assert store.totals.unanswered == 10
    assert len(list(fleet.quarantine.glob("*.sealed"))) == MOST


def test_a_flood_of_rubbish_fills_neither_the_log_nor_the_disk(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    with capture_logs() as logs:
        for start in range(0, 2_000, 200):
            store.take_in([Message(vehicle.topic, b"rubbish %d" % n) for n in range(start, start + 200)])
            assert store.land() == []
    assert len(logs) < 100
    assert len(list(fleet.quarantine.glob("*.sealed"))) == MOST
