"""One table of the lake is deleted or put back, and the others are not: what it lost is said, and taken again once."""

import shutil
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from structlog.testing import capture_logs

from fleet.lake.compact import Work, compact
from fleet.lake.retention import Retention
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import T0_US, Vehicle, numbers

TABLES = ("samples", "events")
ROWS = {"samples": 20, "events": 1, "batches": 1}  # rows of a batch in each table
DAY = datetime.fromtimestamp(T0_US / 1e6, UTC).date()


def bring(store: Store, vehicle: Vehicle, *seqs: int) -> set[int]:
    """Bring batches to a receiver, and return those that it acknowledges."""
    store.take_in([Message(vehicle.topic, vehicle.batch(seq)) for seq in seqs])
    return {seq for answer in store.land() for seq in numbers(vehicle.verify(answer.payload).stored)}


def drive(fleet: FleetFolder, vehicle: Vehicle, *seqs: int, accept: bool = False) -> int:
    """Start a receiver, bring it batches that it must store, and return how many batches it misses at its start."""
    with capture_logs() as logs, closing(open_store(fleet, Share(), accept_lake=accept)) as store:
        store.recover()
        assert bring(store, vehicle, *seqs) == set(seqs)
    said = [entry["missing"] for entry in logs if entry["event"] == "lake_is_older"]
    assert sum(said) == store.totals.missing
    return store.totals.missing


def in_table(fleet: FleetFolder, name: str) -> dict[int, int]:
    rows = DeltaTable(str(fleet.lake / name)).to_pyarrow_table(columns=["seq"])["seq"].to_pylist()
    found = Counter(rows)
    assert not [seq for seq, count in found.items() if count % ROWS[name]]
    return {seq: count // ROWS[name] for seq, count in sorted(found.items())}


def whole(fleet: FleetFolder, seqs: range) -> None:
    for name in ROWS:
        assert in_table(fleet, name) == dict.fromkeys(seqs, 1), name


@pytest.mark.parametrize("name", TABLES)
def test_what_a_deleted_table_lost_is_taken_again_once(fleet: FleetFolder, vehicle: Vehicle, name: str) -> None:
    drive(fleet, vehicle, 1, 2, 3)
    shutil.rmtree(fleet.lake / name)
    assert drive(fleet, vehicle, 1, accept=True) == 3
    assert in_table(fleet, name) == {1: 1}
    assert drive(fleet, vehicle, 1, 2, 4) == 0  # the next start still knows what is missing
    assert drive(fleet, vehicle, 1, 2, 3, 4) == 0
    whole(fleet, range(1, 5))


@pytest.mark.parametrize("name", TABLES)
def test_what_a_table_that_was_put_back_lost_is_taken_again_once(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, name: str
) -> None:
    drive(fleet, vehicle, 1, 2)
    shutil.copytree(fleet.lake / name, tmp_path / "backup")
    drive(fleet, vehicle, 3, 4)
    shutil.rmtree(fleet.lake / name)
    shutil.copytree(tmp_path / "backup", fleet.lake / name)
    assert drive(fleet, vehicle, 1, 2, 3, 4, 5) == 2
    whole(fleet, range(1, 6))


def test_two_tables_that_lost_different_batches(fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path) -> None:
    drive(fleet, vehicle, 1)
    shutil.copytree(fleet.lake / "events", tmp_path / "events")
    drive(fleet, vehicle, 2)
    shutil.copytree(fleet.lake / "samples", tmp_path / "samples")
    drive(fleet, vehicle, 3)
    for name in TABLES:
        shutil.rmtree(fleet.lake / name)
        shutil.copytree(tmp_path / name, fleet.lake / name)
    assert drive(fleet, vehicle, 3, 2, 1) == 2
    whole(fleet, range(1, 4))


def test_a_receiver_that_learns_again_still_knows_what_is_missing(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    drive(fleet, vehicle, 1, 2)
    shutil.rmtree(fleet.lake / "samples")
    with closing(open_store(fleet, Share(), accept_lake=True)) as store:
        assert bring(store, vehicle, 1) == {1}
    shutil.copy(fleet.inbox, tmp_path / "inbox")
    drive(fleet, vehicle)  # the claim that the copy does not know
    shutil.copy(tmp_path / "inbox", fleet.inbox)
    for more in ("-wal", "-shm"):
        fleet.inbox.with_name(fleet.inbox.name + more).unlink(missing_ok=True)
    assert drive(fleet, vehicle, 1, 2) == 0
    whole(fleet, range(1, 3))


def test_a_crash_between_the_tables_makes_nothing_double(
    fleet: FleetFolder, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(fleet, vehicle, 1, 2)
    shutil.rmtree(fleet.lake / "samples")
    with closing(open_store(fleet, Share(), accept_lake=True)) as store:
        store.take_in([Message(vehicle.topic, vehicle.batch(seq)) for seq in (1, 2, 3)])
        monkeypatch.setattr(store._inbox, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.land()
    assert drive(fleet, vehicle, 1, 2, 3) == 0
    whole(fleet, range(1, 4))


@pytest.mark.parametrize(
    "rule", [{}, {"campaign": "drive"}, {"vehicle": "own"}, {"campaign": "drive", "vehicle": "own"}]
)
def test_rows_that_retention_has_deleted_are_not_missing(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, rule: dict[str, str]
) -> None:
    rule = {key: vehicle.name if value == "own" else value for key, value in rule.items()}
    drive(fleet, vehicle, 1, 2)
    retention = Retention(DAY + timedelta(days=1), **rule)
    compact(str(fleet.lake), Work(10**8, 1, retention, dry_run=True))
    compact(str(fleet.lake), Work(10**8, 1, retention, dry_run=False))
    assert in_table(fleet, "samples") == {}
    assert drive(fleet, vehicle, 1, 2) == 0
    shutil.copytree(fleet.lake / "samples", tmp_path / "backup")
    compact(str(fleet.lake), Work(10**8, 1, Retention(DAY - timedelta(days=9), **rule), dry_run=False))
    drive(fleet, vehicle)
    shutil.rmtree(fleet.lake / "samples")
    shutil.copytree(tmp_path / "backup", fleet.lake / "samples")
    assert drive(fleet, vehicle, 1, 2) == 0
    assert in_table(fleet, "samples") == {}


def test_what_a_dry_run_would_delete_is_missing(fleet: FleetFolder, vehicle: Vehicle) -> None:
    drive(fleet, vehicle, 1)
    compact(str(fleet.lake), Work(10**8, 1, Retention(DAY + timedelta(days=1)), dry_run=True))
    shutil.rmtree(fleet.lake / "samples")
    assert drive(fleet, vehicle, 1, accept=True) == 1
    whole(fleet, range(1, 2))
