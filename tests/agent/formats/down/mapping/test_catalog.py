"""A mapping is checked against a catalog of VSS, and a report says what another version would change."""

import copy
import json
from typing import Any

import pytest

from agent.errors import Permanent
from agent.formats.down.mapping.catalog import parse_catalog
from agent.formats.down.mapping.catalog_check import check_against, upgrade_report
from agent.formats.down.mapping.reading import parse_mapping
from agent.telemetry.collect.signal_tables import SignalTables
from agent.telemetry.collect.vss import VssSampler
from can_dbc.compile import compile_plan
from can_dbc.database import load
from tests import shared_data

LAMPS = {"type": "actuator", "datatype": "string", "allowed": ["OFF", "ON"], "description": ""}
CATALOG: dict[str, Any] = {
    "Vehicle": {
        "type": "branch",
        "description": "",
        "children": {
            "VersionVSS": {
                "type": "branch",
                "description": "",
                "children": {
                    "Major": {"type": "attribute", "datatype": "uint32", "default": 5, "description": ""},
                    "Minor": {"type": "attribute", "datatype": "uint32", "default": 1, "description": ""},
                },
            },
            "Speed": {"type": "sensor", "datatype": "float", "unit": "km/h", "description": ""},
            "Lamps": LAMPS,
            "Gear": {"type": "sensor", "datatype": "int8", "min": -1, "max": 8, "description": ""},
            "Cabin": {
                "type": "branch",
                "description": "",
                "children": {"Temp": {"type": "sensor", "datatype": "int16", "unit": "celsius", "description": ""}},
            },
        },
    }
}


def checked(document: dict[str, Any], units: dict[str, list[str]] | None = None) -> list[str]:
    return check_against(parse_mapping(document, "m.json"), parse_catalog(CATALOG, "vss.json"), units or {})


def leaf(datatype: str, pairs: dict[str, object] | None = None, **more: object) -> dict[str, Any]:
    section: dict[str, Any] = {"signal": "S"}
    if pairs is not None:
        section["transform"] = {"mapping": [{"from": key, "to": value} for key, value in pairs.items()]}
    return {"datatype": datatype, "dbc2vss": section, **more}


@pytest.mark.parametrize(
    ("path", "given", "units", "expected"),
    [
        ("Vehicle.Speed", leaf("float"), ["km/h"], []),
        ("Vehicle.Speed", leaf("float"), ["KPH"], []),
        ("Vehicle.Speed", leaf("float"), ["smoots"], []),
        ("Vehicle.Speed", leaf("float"), ["mph"], ["the CAN signal has unit mph, and the path km/h; convert it with"]),
        ("Vehicle.Spede", leaf("float"), [], ["VSS 5.1.0 has no such path; did you mean Vehicle.Speed?"]),
        ("Vehicle.HVAC.Cabin.Temp", leaf("int16"), [], ["VSS 5.1.0 has no such path; did you mean Vehicle.Cabin.Temp"]),
        ("Vehicle.Cabin", leaf("int16"), [], ["this is a branch of VSS 5.1.0; name one of its leaves"]),
        ("Vehicle.Speed", leaf("uint8"), [], ["the mapping says datatype uint8, and VSS 5.1.0 says float"]),
        ("Vehicle.Speed", leaf("float", unit="m/s"), [], ["the mapping says unit m/s, and VSS 5.1.0 says km/h"]),
        ("Vehicle.Lamps", leaf("string", {"a": "ON", "b": "BLINKING"}), [], ["gives 'BLINKING'; allowed are OFF, ON"]),
        ("Vehicle.Lamps", leaf("string", {"a": True}), [], ["gives True, which is no string"]),
        ("Vehicle.Gear", leaf("int8", {"a": 1, "b": 9, "c": 0.5}), [], ["gives 9, outside -1", "gives 0.5, which is"]),
    ],
)
def test_what_contradicts_the_catalog_is_named(
    path: str, given: dict[str, Any], units: list[str], expected: list[str]
) -> None:
    found = checked({path: given}, {path: units})
    assert len(found) == len(expected)
    for sentence, words in zip(found, expected, strict=True):
        assert sentence.startswith(f"{path}: ")
        assert words in sentence


def test_a_mapping_for_another_version_is_noted() -> None:
    version = {f"Vehicle.VersionVSS.{part}": {"datatype": "uint32", "default": 4} for part in ("Major", "Minor")}
    assert checked(version) == ["the mapping is for VSS 4.4.0, but vss.json is the catalog of VSS 5.1.0"]


def test_the_report_says_what_an_upgrade_changes() -> None:
    newer = copy.deepcopy(CATALOG)
    children = newer["Vehicle"]["children"]
    children["VersionVSS"]["children"]["Major"]["default"] = 6
    children["Climate"] = {"type": "branch", "children": {"Temp": children.pop("Cabin")["children"]["Temp"]}}
    children["Speed"] |= {"datatype": "double", "unit": "m/s"}
    children["Lamps"] = {**LAMPS, "allowed": ["ON"], "deprecation": "v6.0 moved"}
    mapping = parse_mapping(
        {
            "Vehicle.Speed": leaf("float"),
            "Vehicle.Lamps": leaf("string", {"a": "OFF"}),
            "Vehicle.Gear": leaf("int8"),
            "Vehicle.Cabin.Temp": leaf("int16"),
        },
        "m.json",
    )
    assert upgrade_report(mapping, parse_catalog(CATALOG, "old.json"), parse_catalog(newer, "new.json")) == [
        "Vehicle.Speed: the datatype changes from float to double",
        "Vehicle.Speed: the unit changes from km/h to m/s",
        "Vehicle.Lamps: the allowed values change from OFF, ON to ON",
        "Vehicle.Lamps: the path becomes deprecated (v6.0 moved)",
        "Vehicle.Lamps: the mapping gives 'OFF'; allowed are ON",
        "Vehicle.Cabin.Temp: the path is gone in VSS 6.1.0; the nearest path is Vehicle.Climate.Temp",
    ]
    same = parse_catalog(CATALOG, "old.json")
    assert upgrade_report(mapping, same, same) == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "this is not a catalog"),
        ({}, "this is not a catalog"),
        ({"Vehicle": {"children": {}}}, "no branch with leaves"),
        ({"Vehicle": {"children": {"A": {"type": "sensor"}}}}, "Vehicle.A: the leaf has no datatype"),
        ({"Vehicle": {"children": {"A": 1}}}, "Vehicle.A: a branch or leaf of a catalog is an object"),
        ({"Vehicle": {"instances": ["Left"], "children": {}}}, "Vehicle: the instances are not expanded"),
    ],
)
def test_what_is_no_catalog_is_refused(document: object, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        parse_catalog(document, "vss.json")


def test_the_shipped_mapping_fits_its_own_catalog() -> None:
    shared_data.require()
    folder = shared_data.DATA / "open" / "kuksa"
    document = json.loads((folder / "vss_dbc.json").read_text())
    catalog = parse_catalog(document, "vss_dbc.json")
    mapping = parse_mapping(document, "vss_dbc.json")
    assert (catalog.version, mapping.version, len(mapping.entries)) == ("4.2.0", "4.2.0", 35)
    assert len(catalog.leaves) == 1_069
    tables = SignalTables(("can0",), {"can0": compile_plan([load(folder / "Model3CAN.dbc")])})
    found = check_against(mapping, catalog, VssSampler(mapping, tables).units)
    assert sorted(found) == [
        f"Vehicle.OBD.{name}: the path is deprecated (v5.0 OBD-branch is deprecated.)"
        for name in ("AmbientAirTemperature", "ControlModuleVoltage", "EngineLoad", "Speed")
    ]
