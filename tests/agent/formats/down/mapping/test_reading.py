"""Mapping documents are read as KUKSA's CAN provider means them; what is wrong is refused by its VSS path."""

from pathlib import Path
from typing import Any

import pytest

from agent.commands.mapping_files import read_mapping
from agent.errors import Permanent
from agent.formats.down.mapping.reading import parse_mapping


def leaf(**section: Any) -> dict[str, Any]:
    return {"type": "sensor", "datatype": "float", "dbc2vss": {"signal": "Speed", **section}}


def test_a_tree_and_an_overlay_give_the_same_entries() -> None:
    tree = {"Vehicle": {"type": "branch", "children": {"Speed": leaf(), "Width": {"datatype": "uint16"}}}}
    nested = parse_mapping(tree, "tree.json")
    flat = parse_mapping({"Vehicle.Speed": leaf(), "Vehicle.Width": {"datatype": "uint16"}}, "overlay.vspec")
    assert nested == flat
    assert [entry.path for entry in flat.entries] == ["Vehicle.Speed"]


@pytest.mark.parametrize(
    ("section", "interval_us"),
    [({}, 1_000_000), ({"on_change": True}, 0), ({"on_change": True, "interval_ms": 7}, 7_000)],
)
def test_the_default_interval_depends_on_on_change(section: dict[str, Any], interval_us: int) -> None:
    (entry,) = parse_mapping({"Vehicle.Speed": leaf(**section)}, "a.json").entries
    assert entry.interval_us == interval_us


def test_the_old_name_is_read_and_the_way_to_the_bus_is_ignored_with_a_note() -> None:
    old = {"datatype": "float", "dbc": {"signal": "Speed"}, "vss2dbc": {"signal": "Speed"}}
    mapping = parse_mapping({"Vehicle.Speed": old}, "a.json")
    assert len(mapping.entries) == 1
    assert mapping.notes == ("a.json: Vehicle.Speed: vss2dbc is ignored, because nothing is ever sent to a bus",)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"datatype": "float", "dbc": {"signal": "A"}, "dbc2vss": {"signal": "A"}}, "remove one of them"),
        ({"dbc2vss": {"signal": "A"}}, "needs a datatype"),
        ({"datatype": "float", "dbc2vss": {}}, "signal must name a CAN signal"),
        ({"datatype": "float", "dbc2vss": {"signal": ""}}, "signal must name a CAN signal"),
        ({"datatype": "float", "dbc2vss": "A"}, "must be an object"),
        (leaf(on_change=1), "on_change must be true or false, not 1"),
        (leaf(interval_ms=-1), "not -1"),
        (leaf(interval_ms=1.5), "not 1.5"),
        (leaf(interval_ms=True), "not True"),
        (leaf(transform={}), "exactly one of math and mapping"),
        (leaf(transform={"math": "x", "mapping": []}), "exactly one of math and mapping"),
        (leaf(transform={"math": 2}), "math must be a text, not 2"),
        (leaf(transform={"math": "2*-x"}), r"math '2\*-x': character 2"),
        (leaf(transform={"mapping": {"from": 1, "to": 2}}), "must be a list of pairs"),
        (leaf(transform={"mapping": [{"from": 1}]}), "pair 1 must have from and to"),
        (leaf(transform={"mapping": [{"from": 1, "to": None}]}), "to of pair 1"),
        (leaf(intervall_ms=5), "no field 'intervall_ms'"),
        (leaf(signals={"a": "B"}, transform={"math": "a"}), "exclude each other"),
        ({"datatype": "float", "dbc2vss": {"signals": {"a": "B"}}}, "need a transform with math"),
        (
            {"datatype": "float", "dbc2vss": {"signals": {"min": "B"}, "transform": {"math": "1"}}},
            "cannot name a value",
        ),
        (7, "must be an object, not 7"),
    ],
)
def test_a_faulty_leaf_is_refused_by_its_path(node: Any, words: str) -> None:
    with pytest.raises(Permanent, match=rf"^a\.json: Vehicle\.Speed: .*{words}"):
        parse_mapping({"Vehicle": {"children": {"Speed": node}}}, "a.json")


def test_a_path_with_two_entries_is_refused() -> None:
    tree = {"Vehicle": {"children": {"Speed": leaf()}}, "Vehicle.Speed": leaf()}
    with pytest.raises(Permanent, match=r"^a\.json: Vehicle\.Speed: the path has two entries"):
        parse_mapping(tree, "a.json")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.vspec", "Vehicle.Speed:\n  datatype: float\nVehicle.Speed:\n  datatype: float\n", "occurs twice.*line 3"),
        ("a.vspec", "Vehicle.Speed: [", "this is not YAML.*line"),
        ("a.json", '{"a": {}, "a": {}}', "occurs twice"),
        ("a.json", "[]", "this is not a mapping"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Permanent, match=rf"(?s){name}.*{words}"):
        read_mapping(tmp_path / name)


def test_yes_and_no_are_truths_in_an_overlay(tmp_path: Path) -> None:
    (tmp_path / "a.vspec").write_text("Vehicle.Open:\n  datatype: boolean\n  dbc: {signal: A, on_change: yes}\n")
    (entry,) = read_mapping(tmp_path / "a.vspec").entries
    assert entry.on_change
