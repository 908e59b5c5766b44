"""Test what a publication says before it is signed: what changes for whom, and what enrolled vehicles would refuse."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent, Transient
from agent.formats.down.audience import Attributes, parse_audience
from agent.formats.down.documents import KINDS, read_document
from agent.formats.down.toggles import parse_toggles
from agent.pushes.release import Release
from agent.pushes.validate import validate
from fleet.publishing.population import Population
from fleet.publishing.publish import Publication, draft, publish
from fleet.publishing.repository import read_state
from fleet.publishing.toggle_answers import SAMPLE, attributes_read, check_answers
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord
from tests.agent.pushes.world import NOW, Fleet, campaign, toggles
from tests.fleet.publishing.test_publish import command, versions


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet of 3 Arias in the EU, 2 in the US, and 1 Bora in the EU."""
    fleet = Fleet(tmp_path / "fleet")
    for record in fleet.folder.vehicles.glob("*.json"):
        record.unlink()  # the vehicle of the fixture
    for number, (brand, market) in enumerate([("Aria", "EU")] * 3 + [("Aria", "US")] * 2 + [("Bora", "EU")]):
        enrol(fleet, number, brand, market)
    return fleet


def enrol(fleet: Fleet, number: int, brand: str, market: str, software: str = "") -> str:
    name = f"{number:08x}-0000-4000-8000-000000000000"
    Registry(fleet.folder.vehicles).add(VehicleRecord(name, "", brand, "One", market, 2026, 0, False, software))
    return name


def file(tmp_path: Path, content: bytes, name: str = "t.json") -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


def changes(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    report = json.loads(capsys.readouterr().out)
    return {
        change["document"]: tuple(change[key]["vehicles"] for key in ("gained", "updated", "lost"))
        for change in report["changes"]
    }


def test_what_changes_is_counted_by_document_and_by_brand_and_market(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, drive = file(tmp_path, toggles()), file(tmp_path, campaign("drive"), "d.json")
    command(fleet, "--toggles", flags, "--campaign", drive, "--audience", "brand=Aria")
    assert changes(capsys) == {"campaigns/drive.json": (5, 0, 0), "toggles.json": (5, 0, 0)}
    command(fleet, "--toggles", file(tmp_path, toggles(False)), "--audience", "market=EU", "--yes")
    out = json.loads(capsys.readouterr().out)
    (change,) = out["changes"]
    assert change["gained"] == {"vehicles": 1, "by_market": [{"brand": "Bora", "market": "EU", "vehicles": 1}]}
    assert change["updated"] == {"vehicles": 3, "by_market": [{"brand": "Aria", "market": "EU", "vehicles": 3}]}
    assert change["lost"] == {"vehicles": 2, "by_market": [{"brand": "Aria", "market": "US", "vehicles": 2}]}
    command(fleet, "--remove-campaign", "drive")
    assert changes(capsys) == {"campaigns/drive.json": (0, 0, 5)}
    command(fleet)
    assert changes(capsys) == {}


def test_the_changes_are_said_in_words(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(fleet, "--toggles", file(tmp_path, toggles()), json=False)
    assert "toggles.json: new for 6 vehicles (Aria EU 3, Aria US 2, Bora EU 1)" in capsys.readouterr().out
    command(fleet, "--toggles", file(tmp_path, toggles(False)), "--audience", "brand=Bora", "--yes", json=False)
    shown = capsys.readouterr().out
    assert "toggles.json: changed for 1 vehicle (Bora EU 1)\n" in shown
    assert "toggles.json: taken away from 5 vehicles (Aria EU 3, Aria US 2)\n" in shown


BAD_DBC = b'BO_ 801 Engine: 8 ECU\n SG_ Speed : 0|16@ (1,0) [0|0] "rpm" ECU\n'


@pytest.mark.parametrize("single", [False, True], ids=["of all vehicles", "of one vehicle"])
def test_a_mistake_in_a_new_database_is_named_before_it_is_signed_and_refused_if_strict(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str], single: bool
) -> None:
    vehicle = ["--vehicle", "00000000-0000-4000-8000-000000000000"] if single else []
    (tmp_path / "can0").mkdir()
    database = ["--database", file(tmp_path, BAD_DBC, "can0/bad.dbc"), *vehicle]
    before = read_state(fleet.folder.metadata).versions
    with pytest.raises(Permanent, match="The databases have the mistakes listed above"):
        command(fleet, *database, "--strict")
    assert read_state(fleet.folder.metadata).versions == before
    capsys.readouterr()
    command(fleet, *database, "--dry-run")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("fleet: dbc/can0/bad.dbc: line 2: Engine: ")
    assert "the signal is left out" in said
    command(fleet, *database)
    assert said in capsys.readouterr().err


def test_a_dry_run_tells_the_versions_of_now_from_the_documents_of_then(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(fleet, "--toggles", file(tmp_path, toggles()), json=False)
    capsys.readouterr()
    command(fleet, "--campaign", file(tmp_path, campaign("drive"), "d.json"), "--dry-run", json=False)
    shown = capsys.readouterr().out
    now, then, documents, size = shown[shown.index("Nothing was signed") :].splitlines()[:4]
    versions = read_state(fleet.folder.metadata).versions
    assert now == (
        f"Nothing was signed (--dry-run). Versions now: root: {versions.root}, timestamp: {versions.timestamp}, "
        f"snapshot: {versions.snapshot}, targets: {versions.targets}."
    )
    assert then == "With this publication, there would be:"
    assert documents == "documents: toggles.json, campaigns/drive.json"
    assert size.startswith("bundle_bytes: ")


def test_another_audience_that_changes_nothing_for_any_vehicle_is_called_so(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = file(tmp_path, toggles())
    command(fleet, "--toggles", flags, json=False)
    capsys.readouterr()
    command(fleet, "--toggles", flags, "--audience", "market=EU,market=US", "--dry-run", json=False)
    shown = capsys.readouterr().out
    assert "toggles.json: nothing changes for any vehicle (its audience is recorded anew)" in shown
    assert "reaches no vehicle" not in shown


def test_a_file_that_is_given_twice_is_named_once(fleet: Fleet, tmp_path: Path) -> None:
    drive = file(tmp_path, campaign("drive"), "d.json")
    with pytest.raises(Permanent) as caught:
        command(fleet, "--campaign", drive, "--campaign", drive)
    assert str(caught.value) == f"{drive} is given twice as --campaign. Give it once."


def test_publishing_for_one_market_takes_nothing_from_another_unless_it_is_asked_for(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = file(tmp_path, toggles())
    command(fleet, "--toggles", flags, "--audience", "market=EU")
    before = read_state(fleet.folder.metadata).targets.targets
    with pytest.raises(Permanent, match=r"take documents away: toggles.json from 4 vehicles \(Aria EU 3, Bora EU 1\)"):
        command(fleet, "--toggles", flags, "--audience", "market=US")
    assert read_state(fleet.folder.metadata).targets.targets == before
    command(fleet, "--toggles", flags, "--audience", "market=US", "--yes")
    assert read_state(fleet.folder.metadata).targets.targets != before


def test_a_dry_run_shows_everything_and_signs_nothing(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = versions(fleet)
    command(fleet, "--toggles", file(tmp_path, toggles()), "--audience", "market=US", "--dry-run")
    report = json.loads(capsys.readouterr().out)
    assert (report["dry_run"], report["reached"], report["targets"]) == (True, 2, 1)
    assert report["changes"][0]["gained"]["vehicles"] == 2
    assert versions(fleet) == before
    with pytest.raises(Permanent, match="would remove all flags"):
        command(fleet, "--toggles", file(tmp_path, b"{}"), "--dry-run")


def test_a_value_that_no_vehicle_has_is_a_warning_with_the_nearest_one(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(fleet, 99, "Aria", "EU", software="4.2.1")
    for audience, warning in (
        ("brand=Arya", "No enrolled vehicle has brand=Arya; did you mean 'Aria'?"),
        ("market=CN,brand=Aria", "No enrolled vehicle has market=CN; the enrolled ones are EU, US."),
        ("software=4.2.2", "No enrolled vehicle has software=4.2.2; did you mean '4.2.1'?"),
        ("model_year=2031", "No enrolled vehicle has model_year=2031; the enrolled ones are 2026."),
        ("brand=Aria;brand=Caro,market=EU", "No enrolled vehicle has brand=Caro; "),
        ("vehicle=ffffffff-0000-4000-8000-000000000000", "has vehicle=ffffffff-0000-4000-8000-000000000000; check"),
    ):
        command(fleet, "--toggles", file(tmp_path, toggles()), "--audience", audience, "--dry-run")
        shown = capsys.readouterr()
        assert warning in shown.err
        assert any(warning in each for each in json.loads(shown.out)["warnings"])
    command(fleet, "--toggles", file(tmp_path, toggles()), "--audience", "brand=Aria;market=EU", "--dry-run")
    assert capsys.readouterr().err == ""


def test_both_audience_options_are_taken_or_refused(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = file(tmp_path, toggles())
    both = ("--audience", "brand=Aria,market=US", "--audience", "brand=Bora,market=EU")
    command(fleet, "--toggles", flags, *both, "--dry-run")
    assert changes(capsys) == {"toggles.json": (3, 0, 0)}
    command(fleet, "--toggles", flags, "--audience", "brand=Bora;market=US", "--dry-run")
    assert changes(capsys) == {"toggles.json": (3, 0, 0)}
    with pytest.raises(Permanent, match="--audience 'brand=Bora;market=US'"):
        command(fleet, "--toggles", flags, "--audience", "brand=Bora", "--audience", "market=US")


def by_market(*markets: str) -> bytes:
    """Return a flag whose rule makes the name of the variant from the market; only `markets` have a variant."""
    variants = {f"map-{market}": market for market in markets}
    rule = {"if": [{"var": "market"}, {"cat": ["map-", {"var": "market"}]}, f"map-{markets[0]}"]}
    flag = {"state": "ENABLED", "variants": variants, "targeting": rule}
    return json.dumps({"flags": {"maps": flag}}).encode()


def test_a_rule_that_yields_a_missing_variant_for_some_vehicles_is_not_signed(fleet: Fleet, tmp_path: Path) -> None:
    before = versions(fleet)
    with pytest.raises(Permanent, match=r"flag 'maps'.*map-US.*for the 2 enrolled vehicles with market=US"):
        fleet.publish(by_market("EU"))
    assert versions(fleet) == before
    fleet.publish(by_market("EU"), audience=parse_audience("market=EU"))
    fleet.publish(by_market("EU", "US"))


def test_a_published_rule_that_a_new_vehicle_would_refuse_is_found_by_the_next_publication(fleet: Fleet) -> None:
    fleet.publish(by_market("EU", "US"))
    enrol(fleet, 77, "Aria", "CN")
    with pytest.raises(Permanent, match=r"published toggles.json: flag 'maps'.*market=CN"):
        fleet.publish(None, campaign())


def test_only_the_attributes_that_a_rule_reads_are_combined() -> None:
    for rule, read in (
        ({"==": [{"var": ["brand"]}, "Aria"]}, {"brand"}),
        ({"if": [{"in": [{"var": ["market"]}, ["EU"]]}, {"var": ["modelYear"]}, "off"]}, {"market", "model_year"}),
        ({"var": ["brand.x"]}, {"brand"}),
        ({"==": [{"var": ["app.version"]}, 1]}, set()),
        ({"fractional": [["on", 10], ["off", 90]]}, {"vehicle"}),
        ({"var": [{"cat": ["mar", "ket"]}]}, {"brand", "model", "market", "model_year", "software", "vehicle"}),
        ({"var": [""]}, {"brand", "model", "market", "model_year", "software", "vehicle"}),
        ({"missing": ["brand"]}, {"brand", "model", "market", "model_year", "software", "vehicle"}),
    ):
        assert attributes_read(rule) == read


def test_the_combinations_find_what_checking_every_vehicle_as_the_vehicle_does_finds() -> None:
    """The oracle is the vehicle's own validation of the release, for each vehicle by itself."""
    groups = {
        Attributes("", brand, model, market, year): (f"{number:08x}-1111-4111-8111-111111111111",)
        for number, (brand, model, market, year) in enumerate(
            (brand, model, market, year)
            for brand in ("Aria", "Bora")
            for model in ("One", "Two")
            for market in ("EU", "US")
            for year in (2025, 2026)
        )
    }
    named = groups[Attributes("", "Bora", "Two", "US", 2026)][0]
    found = 0
    for rule in (
        {"cat": ["v-", {"var": "market"}]},
        {"if": [{"==": [{"var": "brand"}, "Bora"]}, {"cat": ["v-", {"var": "model"}]}, "v-EU"]},
        {
            "if": [
                {"and": [{"==": [{"var": "model_year"}, 2025]}, {"==": [{"var": "model"}, "Two"]}]},
                {"+": [1, 1]},
                "v-EU",
            ]
        },
        {"if": [{"==": [{"var": "vehicle"}, named]}, {"cat": ["no", "ne"]}, "v-EU"]},
        {"fractional": [["v-EU", 50], ["v-US", 50]]},
        {"if": [{"missing": ["brand"]}, "v-EU", {"cat": ["v-", {"var": "market"}]}]},
    ):
        flag = {"state": "ENABLED", "variants": {"v-EU": 1, "v-US": 2}, "defaultVariant": "v-EU", "targeting": rule}
        other = {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}
        content = json.dumps({"flags": {"a": flag, "b": other}}).encode()
        refused = False
        for combination, (vehicle,) in groups.items():
            try:
                validate(Release(1, {"toggles.json": content}), Attributes(vehicle, *_values(combination)))
            except Permanent:
                refused = True
        document = read_document(KINDS[0], content, "toggles.json", "toggles.json")
        try:
            check_answers(document, groups)
            assert not refused, rule
        except Permanent:
            assert refused, rule
            found += 1
    assert found == 3


def _values(combination: Attributes) -> tuple[str, str, str, int]:
    return combination.brand, combination.model, combination.market, combination.model_year


def test_what_changed_since_it_was_shown_is_not_signed(fleet: Fleet, tmp_path: Path) -> None:
    files = [("toggles", Path(file(tmp_path, toggles())))]
    shown = draft(fleet.folder, Publication(files=files))
    file(tmp_path, toggles(False))
    with pytest.raises(Transient, match="has changed since"):
        publish(fleet.folder, Publication(files=files), now=NOW, approved=shown)
    file(tmp_path, toggles())
    fleet.publish(None, campaign())
    with pytest.raises(Transient, match="has changed since"):
        publish(fleet.folder, Publication(files=files), now=NOW, approved=shown)
    wanted = Publication(files=files)
    assert publish(fleet.folder, wanted, now=NOW, approved=draft(fleet.folder, wanted)).versions.targets == 3


@pytest.mark.parametrize(("answer", "signed"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_a_terminal_is_asked(fleet: Fleet, tmp_path: Path, answer: str, signed: bool) -> None:
    fleet.folder.ca_certificate.touch()  # this file marks a fleet folder
    words = ["publish", "--fleet", str(fleet.folder.root), "--toggles", file(tmp_path, toggles())]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fleet", *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asked:
        os.close(theirs)
        os.write(ours, answer.encode())
        out, err = asked.communicate(timeout=60)
    os.close(ours)
    assert "new for 6 vehicles" in out
    assert "Sign and publish this? [y/N]" in err
    assert (asked.returncode, versions(fleet).targets) == ((0, 2) if signed else (1, 1))


def test_a_fleet_of_many_vehicles_and_few_combinations_is_compared_in_a_moment() -> None:
    groups = {
        Attributes("", f"Brand{brand}", f"Model{model}", market, year): tuple(
            f"{brand:02x}{model:02x}{year:04x}-{number:04x}-4111-8111-{hash(market) % 10**12:012d}"
            for number in range(100)
        )
        for brand in range(10)
        for model in range(5)
        for market in ("EU", "US", "CN", "JP")
        for year in range(2022, 2027)
    }
    assert len(Population(groups)) == 100_000
    rule = {"if": [{"in": [{"var": "market"}, ["EU", "US"]]}, {"cat": ["on"]}, "off"]}
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": rule}
    content = json.dumps({"flags": {f"flag-{number}": flag for number in range(500)}}).encode()
    document = read_document(KINDS[0], content, "toggles.json", "toggles.json")
    assert parse_toggles(content, "t").kinds
    began = time.process_time()
    check_answers(document, groups)
    assert time.process_time() - began < 10.0
    assert SAMPLE < 100


def test_documents_for_nobody_are_signed_only_on_request(fleet: Fleet, tmp_path: Path) -> None:
    words = ("--toggles", file(tmp_path, toggles()), "--audience", "brand=Zeta")
    before = versions(fleet)
    with pytest.raises(Permanent, match="for none of the 6 enrolled vehicles"):
        command(fleet, *words)
    assert versions(fleet) == before
    command(fleet, "--yes", *words)
    assert versions(fleet) != before
