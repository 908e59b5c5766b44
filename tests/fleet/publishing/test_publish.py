"""Test what a publication signs, what it refuses before it signs, and power cuts while it writes."""

import argparse
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root

from agent.errors import Permanent, Transient
from agent.formats.down.audience import parse_audience
from agent.formats.down.bundle import BUNDLE_BYTES, Versions, parse_bundle
from agent.pushes.trust import verify
from agent.system.durable import write_file
from fleet.commands.publish import add_arguments, run
from fleet.publishing import repository
from fleet.publishing.publish import Publication, publish
from fleet.publishing.repository import read_state
from fleet.state.registry import Registry
from fleet.state.vehicle_record import VehicleRecord
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, noisy_campaign, question, toggles


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "fleet")


def versions(fleet: Fleet) -> Versions:
    return read_state(fleet.folder.metadata).versions


def paths(fleet: Fleet) -> set[str]:
    return set(read_state(fleet.folder.metadata).targets.targets)


def command(fleet: Fleet, *arguments: str, json: bool = True) -> None:
    fleet.folder.ca_certificate.touch()  # this file marks a fleet folder
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(arguments, argparse.Namespace(fleet=fleet.folder.root, json=json))
    assert run(args) == 0


def test_a_new_repository_has_a_root_of_which_two_of_three_keys_make_the_next(fleet: Fleet) -> None:
    metadata = Metadata[Root].from_bytes(fleet.root)
    assert (metadata.signed.roles["root"].threshold, len(metadata.signed.roles["root"].keyids)) == (2, 3)
    assert len(metadata.signatures) == 3
    assert metadata.signed.consistent_snapshot
    assert versions(fleet) == Versions(1, 1, 1, 1)


def test_a_new_repository_is_signed_at_the_time_that_it_is_given(fleet: Fleet) -> None:
    assert read_state(fleet.folder.metadata).timestamp.expires == NOW + timedelta(days=repository.DOCUMENT_DAYS)
    assert Metadata[Root].from_bytes(fleet.root).signed.expires == NOW + timedelta(days=repository.ROOT_DAYS)


def test_a_vehicle_of_an_unused_repository_learns_that_there_is_nothing(fleet: Fleet) -> None:
    release = verify(question(fleet, fleet.bundle())).release
    assert release is not None
    assert release.documents == {}


def test_targets_that_are_not_named_stay_as_they_are(fleet: Fleet) -> None:
    fleet.publish(toggles(), campaign("a"), audience=parse_audience("brand=Aria"))
    before = read_state(fleet.folder.metadata).targets.targets
    fleet.publish(None, campaign("b"))
    after = read_state(fleet.folder.metadata).targets.targets
    assert len(after) == 3
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {"campaigns/b.json"}
    assert after["toggles.json"].custom == {"audience": {"brand": ["Aria"]}}
    assert versions(fleet) == Versions(1, 3, 3, 3)


def test_a_removed_campaign_is_gone_and_an_unknown_one_is_named(fleet: Fleet) -> None:
    fleet.publish(toggles(), campaign("a"))
    publish(fleet.folder, Publication(remove=[("campaign", "a")]), now=NOW)
    assert paths(fleet) == {"toggles.json"}
    with pytest.raises(Permanent, match="The campaign 'a' cannot be removed"):
        publish(fleet.folder, Publication(remove=[("campaign", "a")]), now=NOW)


def test_a_campaign_for_some_vehicles_is_replaced_and_removed_by_its_own_name(fleet: Fleet) -> None:
    some = parse_audience(f"vehicle={VEHICLE.vehicle}")
    assert fleet.publish(None, campaign("a"), audience=some).targets == ("campaigns/a.json",)
    (hidden,) = paths(fleet)
    assert "a.json" not in hidden.split("/")
    assert fleet.publish(None, campaign("a"), audience=some).versions.targets == 2
    assert fleet.publish(None, campaign("a", 5_000), audience=some).targets == ("campaigns/a.json",)
    assert len(paths(fleet)) == 1
    assert hidden not in paths(fleet)
    assert fleet.publish(None, campaign("a")).targets == ("campaigns/a.json",)
    assert paths(fleet) == {"campaigns/a.json"}
    fleet.publish(None, campaign("a"), audience=some)
    with pytest.raises(Permanent, match="Published names of this kind: a"):
        publish(fleet.folder, Publication(remove=[("campaign", "b")]), now=NOW)
    assert publish(fleet.folder, Publication(remove=[("campaign", "a")]), now=NOW).targets == ()
    assert paths(fleet) == set()


def test_without_change_only_the_timestamp_is_signed_anew(fleet: Fleet) -> None:
    fleet.publish(toggles())
    fleet.publish(toggles())
    assert versions(fleet) == Versions(1, 3, 2, 2)


def test_documents_near_their_expiry_are_signed_anew(fleet: Fleet) -> None:
    fleet.publish(toggles())
    fleet.publish(now=NOW + timedelta(days=repository.DOCUMENT_DAYS - 10))
    assert versions(fleet) == Versions(1, 3, 3, 3)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [(b"{}", "would remove all flags"), (toggles().replace(b'"on": true', b'"up": true'), "'on' is not one of")],
)
def test_toggles_that_a_vehicle_would_refuse_are_not_signed(fleet: Fleet, document: bytes, complaint: str) -> None:
    with pytest.raises(Permanent, match=complaint):
        fleet.publish(document)
    assert versions(fleet) == Versions(1, 1, 1, 1)


def test_a_campaign_that_a_vehicle_would_refuse_is_not_signed(fleet: Fleet) -> None:
    with pytest.raises(Permanent, match=r"0\.json"):
        fleet.publish(None, campaign().replace(b"periodMs", b"period"))
    assert versions(fleet) == Versions(1, 1, 1, 1)


def test_two_files_of_one_campaign_are_refused(fleet: Fleet) -> None:
    with pytest.raises(Permanent, match="same campaign name"):
        fleet.publish(None, campaign(), campaign())


def test_what_does_not_fit_one_message_is_not_signed(fleet: Fleet) -> None:
    with pytest.raises(Permanent, match="publish fewer or smaller"):
        fleet.publish(None, *(noisy_campaign(f"c{number}", 19_000) for number in range(6)))
    assert versions(fleet) == Versions(1, 1, 1, 1)


def test_the_size_that_is_reported_is_not_below_what_a_vehicle_gets(fleet: Fleet) -> None:
    published = fleet.publish(toggles(), campaign("a"), campaign("b"))
    assert len(fleet.bundle()) <= published.bundle_bytes < len(fleet.bundle()) + 2_000 < BUNDLE_BYTES


def test_a_cut_at_any_write_leaves_the_version_before_or_after_and_the_next_publication_works(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        pass

    fleet.publish(toggles())
    for at in range(6):
        before = versions(fleet)
        left = at

        def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            write_file(path, content, mode=mode)

        monkeypatch.setattr("fleet.publishing.repository.write_file", write)
        cut = False
        try:
            fleet.publish(toggles(bool(at % 2)), campaign(f"c{at}"))
        except Cut:
            cut = True
        monkeypatch.undo()
        assert cut is (at < 5)
        assert versions(fleet) == before if cut else versions(fleet) != before
        assert verify(question(fleet, fleet.bundle())).versions == versions(fleet)


def test_two_publishers_do_not_work_at_once(fleet: Fleet) -> None:
    with repository.locked(fleet.folder), pytest.raises(Transient, match="another"):
        fleet.publish(toggles())


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
def test_a_damaged_repository_is_named(fleet: Fleet, name: str) -> None:
    (fleet.folder.metadata / name).write_bytes(b"")
    with pytest.raises(Permanent, match="restore it from the backup"):
        fleet.publish(toggles())


def test_the_command_reports_what_is_in_force(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.json").write_bytes(toggles())
    (tmp_path / "c.json").write_bytes(campaign("c"))
    command(fleet, "--toggles", str(tmp_path / "t.json"), "--campaign", str(tmp_path / "c.json"))
    report = json.loads(capsys.readouterr().out)
    assert report["documents"] == ["toggles.json", "campaigns/c.json"]
    assert (report["targets"], report["nudged"]) == (2, False)
    command(fleet, "--remove-campaign", "c")
    assert json.loads(capsys.readouterr().out)["documents"] == ["toggles.json"]


def enrolled(fleet: Fleet, number: int, brand: str, market: str = "EU", *, revoked: bool = False) -> str:
    name = f"{number:08x}-0000-4000-8000-000000000000"
    registry = Registry(fleet.folder.vehicles)
    registry.add(VehicleRecord(name, "", brand, "One", market, 2026, 0, revoked))
    return name


def test_a_publication_says_which_vehicles_it_reaches(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in fleet.folder.vehicles.glob("*.json"):
        record.unlink()  # the vehicle of the fixture
    (tmp_path / "t.json").write_bytes(toggles())
    arias = [enrolled(fleet, number, "Aria") for number in range(12)]
    other = enrolled(fleet, 99, "Bora", "US")
    enrolled(fleet, 100, "Bora", "US", revoked=True)

    fleet.publish(toggles())

    def publish_for(*audience: str) -> dict[str, Any]:
        options = [word for each in audience for word in ("--audience", each)]
        command(fleet, "--yes", "--toggles", str(tmp_path / "t.json"), *options)
        return dict(json.loads(capsys.readouterr().out))

    for audience, reached in (
        ((), [*arias, other]),
        (("brand=Aria",), arias),
        (("brand=Bora",), [other]),
        (("brand=Aria", "brand=Bora"), [*arias, other]),
        (("brand=Aria,brand=Bora",), [*arias, other]),
        (("brand=Aria,market=US",), []),
        ((f"vehicle={arias[0]}", f"vehicle={other}"), [arias[0], other]),
    ):
        found = publish_for(*audience)
        assert (found["reached"], found["enrolled"], found["vehicles"]) == (len(reached), 13, reached[:10])


def test_the_reach_is_said_in_words(fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in fleet.folder.vehicles.glob("*.json"):
        record.unlink()  # the vehicle of the fixture
    (tmp_path / "t.json").write_bytes(toggles())
    fleet.publish(toggles())
    names = [enrolled(fleet, number, "Aria") for number in range(12)]
    (fleet.folder.vehicles / "ffffffff-0000-4000-8000-000000000000.json").write_text("{")
    for audience, words in (
        ("brand=Aria", f"The documents are for 12 of 12 enrolled vehicles: {', '.join(names[:10])} and 2 more."),
        (f"vehicle={names[3]}", f"The documents are for 1 of 12 enrolled vehicles: {names[3]}."),
        ("brand=aria", "The documents are for none of the 12 enrolled vehicles. Check --audience."),
    ):
        command(fleet, "--yes", "--toggles", str(tmp_path / "t.json"), "--audience", audience, json=False)
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == words
        assert "ffffffff" in shown.err
    command(fleet, json=False)  # a renewal has no documents of its own
    assert "The documents are for" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--audience", "colour=red"), "colour"),
        (("--audience", "model_year=new"), "number"),
        (("--audience", "brand"), "KEY=VALUE"),
        (("--audience", "vehicle=11111111-2222-4333-8444-55555555555"), "not a pseudonym"),
        (("--audience", "brand=Ari\udce9"), "KEY=VALUE"),
        (("--audience", "brand=Aria", "--audience", "market=EU"), "--audience brand=Aria,market=EU"),
        (("--audience", "brand=Aria", "--audience", "colour=red"), "colour"),
        (
            ("--audience", "brand=Aria"),
            "give --toggles or --authorities or --settings or --database or --mapping or --campaign or --recipient",
        ),
        (("--remove-campaign", "d"), "Published names of this kind: none"),
        (("--toggles", "/nonexistent.json"), "/nonexistent.json cannot be read"),
    ],
)
def test_wrong_arguments_are_named_and_sign_nothing(fleet: Fleet, arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(Permanent, match=complaint):
        command(fleet, *arguments)
    assert versions(fleet) == Versions(1, 1, 1, 1)


def test_a_key_that_is_missing_is_named(fleet: Fleet) -> None:
    fleet.folder.key("snapshot").unlink()
    with pytest.raises(Permanent, match=r"snapshot\.pem"):
        fleet.publish(toggles())
    assert parse_bundle(fleet.bundle())
