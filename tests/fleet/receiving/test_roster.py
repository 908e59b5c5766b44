"""The table of vehicles follows the registry and the reports of vehicles, and survives crashes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.formats.topics import partition_of
from fleet.lake.compact import Work, compact
from fleet.lake.location import Location
from fleet.lake.opening import has_table
from fleet.lake.query import query
from fleet.lake.vehicles import enrolled_vehicles
from fleet.receiving.agent_reports import AgentReports
from fleet.receiving.roster import Roster
from fleet.receiving.service import own_lake
from fleet.receiving.share import Share
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from tests.fleet.lake.receipts import Arrivals, batch_of, receipt
from tests.fleet.vehicles import DEMO, Vehicle, make_vehicle

Make = Callable[..., Roster]


@pytest.fixture
def lake(fleet: FleetFolder) -> Location:
    return own_lake(fleet)


@pytest.fixture
def arrivals(lake: Location) -> Arrivals:
    return Arrivals(lake.uri)


def roster(fleet: FleetFolder, share: Share | None = None, reports: AgentReports | None = None) -> Roster:
    return Roster(Registry(fleet.vehicles), own_lake(fleet), share or Share(), reports or AgentReports())


def rows(lake: Location) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(lake, "SELECT * FROM vehicles ORDER BY vehicle").to_pylist()
    return found


def grow_old(fleet: FleetFolder) -> None:
    """Set the time of the registry's folder back, as if its last change were long ago."""
    past_s = time.time() - 100
    os.utime(fleet.vehicles, (past_s, past_s))


def test_an_enrolled_vehicle_has_a_row_that_samples_can_be_joined_with(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    assert roster(fleet).update() == 1
    (row,) = rows(lake)
    assert (row["brand"], row["model"], row["market"], row["model_year"]) == (
        DEMO.brand,
        DEMO.model,
        DEMO.market,
        DEMO.model_year,
    )
    assert (row["partition"], row["revoked"], row["agent"]) == (partition_of(vehicle.name), False, None)
    arrivals.land((vehicle.name, [receipt("push_applied", 2)]))
    joined = "SELECT market, count(*) AS n FROM events JOIN vehicles USING (vehicle) GROUP BY market"
    assert query(lake, joined).to_pylist() == [{"market": DEMO.market, "n": 1}]


def test_a_question_about_vehicles_is_answered_before_the_table_exists(lake: Location, arrivals: Arrivals) -> None:
    assert arrivals is not None
    assert not has_table(lake, "vehicles")
    assert rows(lake) == []


def test_a_revocation_and_new_software_change_the_row(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    kept = roster(fleet)
    kept.update()
    registry = Registry(fleet.vehicles)
    registry.revoke(vehicle.name)
    registry.note_software(vehicle.name, "2026.4")
    assert kept.update() == 1
    (row,) = rows(lake)
    assert (row["revoked"], row["software"]) == (True, "2026.4")


def test_nothing_is_read_while_nothing_changes(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    assert (vehicle, arrivals) is not None
    grow_old(fleet)
    kept = roster(fleet)
    assert kept.update() == 1
    for file in fleet.vehicles.iterdir():
        file.write_text("damaged")  # the folder's own time stays, so this is not even looked at
    assert kept.update() == 0
    assert len(rows(lake)) == 1


def test_the_agents_version_comes_from_the_batches_that_land(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    reports = AgentReports()
    kept = roster(fleet, reports=reports)
    kept.update()
    reports.note([batch_of(vehicle.name, 1, [receipt("agent_started", "1.0"), receipt("push_applied", 2)])])
    reports.note([batch_of(vehicle.name, 2, [receipt("agent_started", "1.1")])])
    assert kept.update() == 1
    assert [row["agent"] for row in rows(lake)] == ["1.1"]
    Registry(fleet.vehicles).revoke(vehicle.name)
    kept.update()
    assert [(row["agent"], row["revoked"]) for row in rows(lake)] == [("1.1", True)]


def test_a_report_that_landed_before_a_crash_is_found_at_the_next_start(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    roster(fleet).update()
    arrivals.land((vehicle.name, [receipt("agent_started", "1.1")]))
    assert roster(fleet).update() == 1
    assert [row["agent"] for row in rows(lake)] == ["1.1"]


def test_receivers_of_two_shares_write_all_vehicles_once(
    fleet: FleetFolder, tmp_path: Path, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    cars = sorted(make_vehicle(fleet, tmp_path / f"car{n}").name for n in range(8))
    halves = [roster(fleet, Share(0, 7)), roster(fleet, Share(8, 15))]
    assert sum(half.update() for half in halves) == 8
    assert [row["vehicle"] for row in rows(lake)] == cars
    assert [half.update() for half in halves] == [0, 0]


def test_a_damaged_record_keeps_no_other_vehicle_out(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    other = make_vehicle(fleet, tmp_path / "other")
    (fleet.vehicles / f"{vehicle.name}.json").write_text("{")
    assert roster(fleet).update() == 1
    assert [row["vehicle"] for row in rows(lake)] == [other.name]


def test_status_reads_a_record_that_is_newer_than_the_table(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    roster(fleet).update()
    registry = Registry(fleet.vehicles)
    registry.revoke(vehicle.name)
    other = make_vehicle(fleet, tmp_path / "other")
    found = enrolled_vehicles(lake, registry)
    assert {name: each.revoked for name, each in found.items()} == {vehicle.name: True, other.name: False}
    before = found[other.name]
    roster(fleet).update()
    assert enrolled_vehicles(lake, registry)[other.name] == before


def test_compaction_keeps_the_rows_and_removes_what_updates_left(
    fleet: FleetFolder, vehicle: Vehicle, lake: Location, arrivals: Arrivals
) -> None:
    assert arrivals is not None
    kept = roster(fleet)
    kept.update()
    for number in range(3):
        Registry(fleet.vehicles).note_software(vehicle.name, f"1.{number}")
        kept.update()
    *_, report = compact(lake, Work(10**8, 0, None, dry_run=False))
    assert report["table"] == "vehicles"
    assert report["files_vacuumed"] >= 3
    assert [row["software"] for row in rows(lake)] == ["1.2"]
