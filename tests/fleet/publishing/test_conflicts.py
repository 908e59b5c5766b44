"""Publishing for some vehicles takes nothing from others, and no vehicle gets two definitions of one thing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.formats.down.audience import EVERYONE, Attributes, parse_audience
from agent.pushes.release import Reason
from agent.pushes.trust import verify
from agent.pushes.verifier import judge
from fleet.publishing.publish import Publication, publish
from fleet.publishing.repository import read_state
from tests.agent.car import DATABASES
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, question

GERMAN, FRENCH = VEHICLE, replace(VEHICLE, vehicle="11111111-2222-4333-8444-555555555555", market="FR")
DEMO = (DATABASES / "demo_body.dbc").read_bytes()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path / "fleet")
    fleet.enrol(FRENCH)
    return fleet


def flags(*keys: str, name: str = "", default: str = "on") -> bytes:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": default}
    return json.dumps({"flags": dict.fromkeys(keys, flag), "metadata": {"flagSetId": name} if name else {}}).encode()


def put(
    fleet: Fleet, kind: str, file: str, content: bytes, audience: str = "", remove: tuple[tuple[str, str], ...] = ()
) -> None:
    path = fleet.folder.root / "documents" / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    lists = parse_audience(audience) if audience else EVERYONE
    publish(fleet.folder, Publication(files=[(kind, path)], remove=remove, audience=lists), now=NOW)


def documents(fleet: Fleet, vehicle: Attributes = VEHICLE) -> dict[str, bytes]:
    asked = question(fleet, fleet.bundle(vehicle=vehicle), vehicle=vehicle)
    assert judge(asked).reason is None
    release = verify(asked).release
    assert release is not None
    return release.documents


def flags_of(fleet: Fleet, vehicle: Attributes) -> list[str]:
    return sorted(key for content in documents(fleet, vehicle).values() for key in json.loads(content)["flags"])


def test_toggles_of_two_markets_stand_beside_each_other_and_beside_those_of_all(fleet: Fleet) -> None:
    put(fleet, "toggles", "all.json", flags("horn"))
    put(fleet, "toggles", "de.json", flags("autobahn", "radio", name="germany"), "market=DE")
    put(fleet, "toggles", "fr.json", flags("radio", name="france"), "market=FR")
    assert flags_of(fleet, GERMAN) == ["autobahn", "horn", "radio"]
    assert flags_of(fleet, FRENCH) == ["horn", "radio"]
    assert "toggles.json" in documents(fleet)  # the document of a fleet from before documents had names
    put(fleet, "toggles", "de2.json", flags("tunnel", name="germany"), "market=DE")
    assert flags_of(fleet, GERMAN) == ["horn", "tunnel"]
    assert flags_of(fleet, FRENCH) == ["horn", "radio"]
    publish(fleet.folder, Publication(remove=[("toggles", "germany"), ("toggles", "toggles")]), now=NOW)
    assert (flags_of(fleet, GERMAN), flags_of(fleet, FRENCH)) == ([], ["radio"])


def test_a_flag_of_two_documents_for_one_vehicle_is_refused_and_both_are_named(fleet: Fleet) -> None:
    put(fleet, "toggles", "de.json", flags("radio", name="germany"), "market=DE")
    before = read_state(fleet.folder.metadata).versions
    for audience in ("", "brand=Aria", "market=DE,market=FR"):
        with pytest.raises(Permanent, match=r"x\.json: flag 'radio' is also in published toggles/germany\.json"):
            put(fleet, "toggles", "x.json", flags("horn", "radio", name="other"), audience)
    with pytest.raises(Permanent, match=r"b\.json: flag 'horn' is also in .*a\.json"):
        for name in ("a", "b"):
            (fleet.folder.root / "documents" / f"{name}.json").write_bytes(flags("horn", name=name))
        files = [("toggles", fleet.folder.root / "documents" / f"{name}.json") for name in ("a", "b")]
        publish(fleet.folder, Publication(files=files), now=NOW)
    assert read_state(fleet.folder.metadata).versions == before


def test_a_vehicle_refuses_two_definitions_of_a_flag_that_a_broken_publisher_signed(fleet: Fleet) -> None:
    put(fleet, "toggles", "a.json", flags("radio", name="a"))
    fleet.sign_as_is("toggles/b.json", flags("horn", "radio", name="b"))
    verdict = judge(question(fleet, fleet.bundle()))
    assert verdict.reason is Reason.INVALID
    assert verdict.detail.startswith("toggles/b.json: flag 'radio' is also in toggles/a.json;")


def test_all_flags_of_a_vehicle_have_one_limit(fleet: Fleet) -> None:
    for name in ("a", "b"):
        fleet.sign_as_is(f"toggles/{name}.json", flags(*(f"{name}{n}" for n in range(1_001)), name=name))
    verdict = judge(question(fleet, fleet.bundle()))
    assert verdict.detail == "toggles/a.json, toggles/b.json: one vehicle gets 2,002 flags; at most 2,000 are allowed"


@pytest.mark.parametrize(
    ("first", "second"), [("market=DE", ""), ("market=DE", "market=DE"), ("market=DE", "market=DE,market=FR")]
)
def test_a_document_replaces_its_earlier_version_for_the_same_and_more_vehicles(
    fleet: Fleet, first: str, second: str
) -> None:
    put(fleet, "toggles", "a.json", flags("radio"), first)
    put(fleet, "toggles", "b.json", flags("horn"), second)
    assert flags_of(fleet, GERMAN) == ["horn"]


def test_settings_of_two_markets_stand_beside_each_other_and_one_key_is_set_once(fleet: Fleet) -> None:
    put(fleet, "settings", "all.toml", b"[log]\nlevel = 'debug'")
    put(fleet, "settings", "de.toml", b"name = 'germany'\n[uplink]\nbacklog_kbit_s = 5", "market=DE")
    put(fleet, "settings", "fr.toml", b"name = 'france'\n[uplink]\nbacklog_kbit_s = 6", "market=FR")
    assert sorted(documents(fleet, FRENCH).values()) == [
        b"[log]\nlevel = 'debug'",
        b"name = 'france'\n[uplink]\nbacklog_kbit_s = 6",
    ]
    assert "settings.toml" in documents(fleet)
    with pytest.raises(Permanent, match=r"x\.toml: key 'uplink\.backlog_kbit_s' is also in published settings/"):
        put(fleet, "settings", "x.toml", b"name = 'x'\n[uplink]\nbacklog_kbit_s = 7", "brand=Aria")


def test_a_setting_of_the_vehicle_alone_is_not_signed_and_a_vehicle_refuses_it_with_its_key(fleet: Fleet) -> None:
    content = b"[uplink]\nbroker = 'evil.example:8883'"
    with pytest.raises(Permanent, match=r"s\.toml: uplink\.broker: the fleet cannot set this"):
        put(fleet, "settings", "s.toml", content)
    fleet.sign_as_is("settings.toml", content)
    verdict = judge(question(fleet, fleet.bundle()))
    assert verdict.reason is Reason.INVALID
    assert verdict.detail.startswith("settings.toml: uplink.broker: the fleet cannot set this")


def test_a_database_is_published_for_its_bus_and_withdrawn_by_its_name(fleet: Fleet) -> None:
    put(fleet, "database", "can1/body.dbc", DEMO)
    assert documents(fleet) == {"dbc/can1/body.dbc": DEMO}
    publish(fleet.folder, Publication(remove=[("database", "can1/body.dbc")]), now=NOW)
    assert documents(fleet) == {}


def test_a_database_that_vehicles_cannot_compile_is_not_signed(fleet: Fleet) -> None:
    with pytest.raises(Permanent, match=r"^dbc/can1/body\.dbc: line 1: the file has no entry of a DBC"):
        put(fleet, "database", "can1/body.dbc", b"hello")
    put(fleet, "database", "can1/body.dbc", b'BO_ 1 M: 8 A\n SG_ S : 0|8@1+ (1,0) [0|1] "\xff" A\n')
    with pytest.raises(Permanent, match=r"^dbc/can1/body\.dbc: line 2: the text is not utf-8"):
        put(fleet, "settings", "s.toml", b"[bus.can1]\ndbc = [{file = 'body.dbc', encoding = 'utf-8'}]")
