"""The list names every key of a fleet, and asks for action long before a key expires."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.admin.enrol import enrol
from fleet.admin.key_list import OK, list_keys
from fleet.publishing.publish import publish
from fleet.state.folder import ROOT_KEYS, FleetFolder
from fleet.state.registry import Registry
from tests.fleet.vehicles import DEMO

NOW = datetime.now(UTC)


def actions(fleet: FleetFolder, now: datetime) -> dict[str, str]:
    return {line.name: line.action for line in list_keys(fleet, now).lines}


def test_every_private_key_of_a_new_fleet_has_a_line(fleet: FleetFolder) -> None:
    names = {line.name for line in list_keys(fleet, NOW).lines}
    files = {path.stem for path in fleet.keys.iterdir()}
    assert {"ca.key", "hpke"} < files
    assert names == files - {"ca.key", "hpke"} | {"authority", "sealing", "broker", "receiver"}


def test_each_expiry_is_announced_before_it_comes_with_the_command_that_prevents_it(fleet: FleetFolder) -> None:
    assert actions(fleet, NOW)["broker"] == OK
    near = actions(fleet, NOW + timedelta(days=5 * 365 - 89))
    assert near["broker"] == "Expires in 89 days. Run `fleet keys renew broker`."
    assert near["receiver"].endswith("Run `fleet keys renew receiver`.")
    assert near["timestamp"].startswith("Expired. ")
    publish(fleet, now=NOW)
    assert actions(fleet, NOW + timedelta(days=59))["timestamp"] == OK
    assert actions(fleet, NOW + timedelta(days=61))["timestamp"].startswith("Expires in 28 days.")
    assert actions(fleet, NOW + timedelta(days=15 * 365 - 10))["root1"].startswith(
        "Expires in 10 days. Sign a new root"
    )
    assert actions(fleet, NOW + timedelta(days=30 * 365 + 1))["authority"].startswith("Expired.")


def test_root_keys_that_were_taken_offline_are_listed_by_their_id(fleet: FleetFolder) -> None:
    before = {line.name: line.id for line in list_keys(fleet, NOW).lines}
    for name in ROOT_KEYS:
        fleet.key(name).unlink()
    after = {line.name: line for line in list_keys(fleet, NOW).lines}
    assert [after[name].id for name in ROOT_KEYS] == [before[name] for name in ROOT_KEYS]
    assert {after[name].holder for name in ROOT_KEYS} == {"offline"}


def test_certificates_of_vehicles_are_counted_and_a_damaged_record_is_named(fleet: FleetFolder, tmp_path: Path) -> None:
    names = [
        enrol(fleet, tmp_path / f"{number}", DEMO, days=days, now=NOW).vehicle
        for number, days in enumerate((1, 30, 500, 500, 500))
    ]
    Registry(fleet.vehicles).revoke(names[3])
    (fleet.vehicles / f"{names[4]}.json").write_text("{}")
    found = list_keys(fleet, NOW + timedelta(days=2)).vehicles
    assert (found.enrolled, found.revoked, found.expired, found.expire_soon) == (5, 1, 1, 1)
    assert found.soonest is not None
    assert abs(found.soonest - NOW - timedelta(days=1)) < timedelta(seconds=2)
    assert len(found.unreadable) == 1
    assert names[4] in found.unreadable[0]


def test_the_command_prints_the_same_list_as_a_table_and_as_json(
    fleet: FleetFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "list", "--fleet", str(fleet.root), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert main(["keys", "--fleet", str(fleet.root), "list"]) == 0
    text = capsys.readouterr().out
    assert all(line["name"] in text and line["id"] in text for line in lines)
