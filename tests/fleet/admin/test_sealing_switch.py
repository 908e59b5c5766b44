"""The fleet sees which vehicles follow a rotation of the sealing key, and when nothing needs the earlier key."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.formats.topics import Lane
from agent.formats.up.columns import Event
from agent.formats.up.seal import Header
from fleet.__main__ import main
from fleet.admin.enrol import enrol
from fleet.admin.rotate_sealing import rotate_sealing
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.rows import rows_of
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from tests.fleet.lake.receipts import Arrivals
from tests.fleet.vehicles import DEMO, EPOCH, T0_US, make_window

NOW = datetime.now(UTC)
BEFORE = NOW - timedelta(days=300)


class Car:
    """A vehicle whose batches are put into the lake, so that each can be sealed to any key and come in any order."""

    def __init__(self, fleet: FleetFolder, arrivals: Arrivals, folder: Path, enrolled: datetime = BEFORE) -> None:
        self.name = enrol(fleet, folder, DEMO, days=5_000, now=enrolled).vehicle
        self._arrivals = arrivals

    def sends(self, seq: int, key: str, *events: Event, epoch: str = EPOCH) -> None:
        header = Header(self.name, epoch, seq, Lane.LIVE, key, "X25519", T0_US)
        window = replace(make_window(1), groups=(), events=events)
        digest = f"{self.name[:8]}{epoch[:2]}{seq}".encode().ljust(16)
        self._arrivals.land_rows([rows_of(OpenedBatch(header, window, 100, T0_US + seq, digest))])


@pytest.fixture
def arrivals(fleet: FleetFolder) -> Arrivals:
    return Arrivals(str(fleet.lake))


def listed(fleet: FleetFolder, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, int]]:
    """Return what `fleet keys list` says to do with the earlier key, and its counts."""
    capsys.readouterr()
    assert main(["keys", "list", "--fleet", str(fleet.root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (line,) = (line for line in answer["lines"] if line["name"] == "sealing, earlier")
    return line["action"], answer["sealing"]


def test_an_earlier_key_is_kept_until_no_vehicle_can_hold_a_batch_for_it(
    fleet: FleetFolder, arrivals: Arrivals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follower, parked, silent, stolen = (Car(fleet, arrivals, tmp_path / name) for name in ("a", "b", "c", "d"))
    rotated = rotate_sealing(fleet, suite=None, now=NOW)
    Car(fleet, arrivals, tmp_path / "new", NOW + timedelta(days=1))  # has the new key from its enrolment
    old, new = rotated.before, rotated.key_id
    stolen.sends(1, old)
    Registry(fleet.vehicles).revoke(stolen.name)

    parked.sends(1, old)
    follower.sends(1, old)
    follower.sends(3, new)  # number 2 waits in its spool
    action, counts = listed(fleet, capsys)
    assert action == (
        "Keep it. Of the vehicles, 1 have not switched, 1 were never heard, 1 may still hold batches from before "
        "(fleet status --all --json)."
    )
    assert counts["switched"] == 1

    parked.sends(2, new)
    silent.sends(1, new)
    assert listed(fleet, capsys)[0].startswith("Keep it. Of the vehicles, 1 may still hold batches from before (")
    follower.sends(2, old)
    follower.sends(5, new)  # number 4 is sealed to the new key, so the old one is not needed for it
    action, counts = listed(fleet, capsys)
    assert action == "No vehicle needs it any more (the last batch came on 2025-10-09). Move it to the offline backup."
    assert (counts["switched"], counts["waiting"], counts["never_heard"], counts["incomplete"]) == (3, 0, 0, 0)


def test_a_missing_number_that_a_loss_explains_needs_no_key(
    fleet: FleetFolder, arrivals: Arrivals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    car = Car(fleet, arrivals, tmp_path / "a")
    rotated = rotate_sealing(fleet, suite=None, now=NOW)
    car.sends(1, rotated.before)
    loss = {"reason": "quota", "epoch": EPOCH, "id": 1, "first_seq": 2, "last_seq": 2, "batches": 1}
    car.sends(3, rotated.key_id, Event(T0_US, "loss", loss))
    assert listed(fleet, capsys)[0].startswith("No vehicle needs it any more")
    car.sends(2, rotated.key_id, epoch="f" * 32)  # number 1 of this epoch may come from before the switch
    assert "1 may still hold batches" in listed(fleet, capsys)[0]
    car.sends(1, rotated.key_id, epoch="f" * 32)
    assert listed(fleet, capsys)[0].startswith("No vehicle needs it any more")


def test_status_names_the_vehicles_that_seal_to_an_earlier_key(
    fleet: FleetFolder, arrivals: Arrivals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follower, parked, silent = (Car(fleet, arrivals, tmp_path / name) for name in ("a", "b", "c"))
    rotated = rotate_sealing(fleet, suite=None, now=NOW)
    parked.sends(1, rotated.before)
    follower.sends(1, rotated.before)
    follower.sends(2, rotated.key_id)
    assert main(["status", "--all", "--fleet", str(fleet.root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sealing_to_earlier_key"] == 1
    found = {each["vehicle"]: each["seals_to_key_in_use"] for each in answer["vehicles"]}
    assert found == {follower.name: True, parked.name: False, silent.name: None}
    assert main(["status", "--fleet", str(fleet.root)]) == 0
    assert "sealing key:  1 still seal to an earlier one (see fleet keys list)" in capsys.readouterr().out


def test_without_a_lake_the_list_keeps_every_key(fleet: FleetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    rotate_sealing(fleet, suite=None, now=NOW)
    assert main(["keys", "list", "--fleet", str(fleet.root)]) == 0
    assert "Keep it; with the lake, this list says what needs it." in capsys.readouterr().out
