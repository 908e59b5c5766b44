"""`replay --what-if` tells triggers, samples, bytes and memory, and writes the records of a campaign."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import main
from agent.telemetry.collect.conditions.records import records_of
from can_dbc.frames import concatenate
from tests.agent.car import DATABASES, campaign, drive, write_log
from tests.agent.telemetry.collect.conditions import shared_cases
from tests.agent.telemetry.collect.test_collector import PLANS

DBC = ("--dbc", f"can0={DATABASES}/demo_powertrain.dbc", "--dbc", f"can1={DATABASES}/demo_body.dbc")
DOCUMENT: dict[str, Any] = {
    "name": "moving",
    "collectionScheme": {
        "conditionBasedCollectionScheme": {
            "expression": "$variable.`Vehicle.VehicleMotion.Speed` > 5",
            "triggerMode": "RISING_EDGE",
        }
    },
    "postTriggerCollectionDuration": 500,
    "signalsToCollect": [{"name": "VehicleMotion.Speed", "maxSampleCount": 50}, {"name": "Warp.Drive"}],
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    write_log(tmp_path / "d.log", 12.0)
    (tmp_path / "moving.json").write_text(json.dumps(DOCUMENT))
    return ["replay", "--what-if", str(tmp_path / "moving.json"), "--log", str(tmp_path / "d.log"), *map(str, DBC)]


def test_triggers_are_told_with_what_they_send_and_what_was_not_found(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    right = records_of(DOCUMENT, PLANS, [concatenate(drive(12.0))])
    (trigger,) = (record for record in right if record["k"] == "trigger")
    assert main([*files, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["campaigns"]
    assert found["triggers"] == [
        {"n": 1, "t_us": trigger["t_us"], "until_us": trigger["until_us"], "samples": len(right) - 1}
    ]
    assert (found["unknown"], found["ring_bytes"]) == ({"Warp.Drive": None}, 4_800)
    assert found["bytes_per_hour"] > 0
    assert main(files) == 0
    shown = capsys.readouterr().out
    assert "1 trigger on this drive" in shown
    assert f"{len(right) - 1} samples, until 0.500 s later" in shown
    assert "'Warp.Drive' matches no signal of the databases" in shown


def test_records_and_a_picture_are_written(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, "--records", str(tmp_path / "r.jsonl"), "--picture", str(tmp_path / "p.png")]) == 0
    capsys.readouterr()
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert records == records_of(DOCUMENT, PLANS, [concatenate(drive(12.0))])
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_time_based_campaign_has_figures_and_no_triggers(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.json").write_bytes(campaign("all"))
    assert main([*files, "--what-if", str(tmp_path / "all.json"), "--json"]) == 0
    _, timed = json.loads(capsys.readouterr().out)["campaigns"]
    assert (timed["name"], timed["triggers"], timed["triggers_per_hour"]) == ("all", [], None)
    assert timed["samples_per_hour"] > 1_000_000


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--records", "/nonexistent/r.jsonl"], "/nonexistent/r.jsonl: No such file or directory"),
        (["--what-if", "again.json", "--records", "r.jsonl"], "--records and --picture are for one"),
    ],
)
def test_what_cannot_be_written_is_named(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    (tmp_path / "again.json").write_text(json.dumps(DOCUMENT | {"name": "again"}))
    words = [str(tmp_path / word) if word == "again.json" else word for word in more]
    assert main([*files, *words]) == 1
    assert complaint in capsys.readouterr().err


def test_databases_are_needed(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(files[: files.index("--dbc")]) == 1
    assert "give them with --dbc" in capsys.readouterr().err


@pytest.mark.shared
@pytest.mark.parametrize("name", ["multi-rising-edge", "several-senders"])
def test_the_records_of_a_case_are_the_expected_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    case = shared_cases.case(name)
    (tmp_path / "c.json").write_text(json.dumps(case.document))
    words = ["--what-if", tmp_path / "c.json", "--log", case.log, "--records", tmp_path / "r.jsonl"]
    for bus, paths, match in case.databases:
        words += [word for path in paths for word in ("--dbc", f"{bus}={path}")] + ["--match", match.value]
    assert main(["replay", *map(str, words)]) == 0
    capsys.readouterr()
    found = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert shared_cases.difference(case.expected, found) is None


def test_a_mapping_gives_names_to_conditions_and_collections(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapped = {"datatype": "float", "dbc2vss": {"signal": "VehicleMotion.Speed", "interval_ms": 0}}
    (tmp_path / "car.json").write_text(json.dumps({"Vehicle.Speed": mapped}))
    document = json.loads(json.dumps(DOCUMENT).replace("Vehicle.VehicleMotion.Speed", "Vehicle.Speed"))
    document["signalsToCollect"][0]["name"] = "Vehicle.Speed"
    right = [record["t_us"] for record in records_of(DOCUMENT, PLANS, [concatenate(drive(12.0))])]
    (tmp_path / "moving.json").write_text(json.dumps(document))
    options = ["--mapping", f"can0={tmp_path}/car.json", "--records", str(tmp_path / "r.jsonl")]
    assert main([*files, *options]) == 0
    capsys.readouterr()
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [record["t_us"] for record in records] == right
    assert {(r["message"], r["signal"]) for r in records if r["k"] == "sample"} == {("Vehicle", "Speed")}
