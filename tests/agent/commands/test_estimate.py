"""The estimate of a campaign equals what the agent stores for the same log, and names what no database has."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import main
from agent.commands import estimate
from agent.errors import Permanent
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES
from tests.agent.car import DATABASES, Car, campaign, drive, write_log
from tests.agent.expected import count_samples

DBC = ("--dbc", f"can0={DATABASES}/demo_powertrain.dbc", "--dbc", f"can1={DATABASES}/demo_body.dbc")
SECONDS = 30.0


def estimates(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["estimate", "--json", *map(str, arguments)]) == 0
    return dict(json.loads(capsys.readouterr().out))


def written(folder: Path, content: bytes, name: str = "c.json") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_every_sample_of_the_drive_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "d.log", SECONDS)
    result = estimates(capsys, *DBC, "--campaign", written(tmp_path, campaign()), "--log", tmp_path / "d.log")
    (found,) = result["campaigns"]
    assert result["seconds"] == pytest.approx(SECONDS, abs=0.1)
    assert found["samples_per_hour"] * result["seconds"] / 3_600 == pytest.approx(
        count_samples(drive(SECONDS)), rel=1e-4
    )
    assert found["unknown"] == {}


def test_an_old_log_is_collected_for_a_campaign_that_begins_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "d.log", 5.0)
    later = campaign("later", startTime="2035-01-01T00:00:00Z", status="SUSPENDED")
    files = ("--campaign", written(tmp_path, campaign()), "--campaign", written(tmp_path, later, "later.json"))
    now, then = estimates(capsys, *DBC, *files, "--log", tmp_path / "d.log")["campaigns"]
    assert now["bytes_per_hour"] == pytest.approx(then["bytes_per_hour"], rel=0.01)


def test_a_pause_of_the_drive_does_not_make_the_hour_cheaper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "d.log", 5.0)
    lines = (tmp_path / "d.log").read_text().splitlines(keepends=True)
    half = len(lines) // 2
    later = [f"({float(line[1 : line.index(')')]) + 3_600:.6f}){line[line.index(')') + 1 :]}" for line in lines[half:]]
    written(tmp_path, "".join([*lines[:half], *later]).encode(), "pause.log")
    file = ("--campaign", written(tmp_path, campaign()))
    whole, paused = (estimates(capsys, *DBC, *file, "--log", tmp_path / name) for name in ("d.log", "pause.log"))
    assert paused["seconds"] == pytest.approx(whole["seconds"], abs=0.1)
    assert paused["campaigns"][0]["samples_per_hour"] == pytest.approx(
        whole["campaigns"][0]["samples_per_hour"], rel=0.01
    )


def conditional(expression: str) -> bytes:
    scheme = {"expression": expression, "minimumTriggerIntervalMs": 1_000}
    signals = [{"name": "VehicleMotion.Speed", "maxSampleCount": 25}]
    return json.dumps(
        {
            "name": "c",
            "collectionScheme": {"conditionBasedCollectionScheme": scheme},
            "signalsToCollect": signals,
        }
    ).encode()


def test_triggers_and_what_they_send_are_counted_with_the_memory_of_the_rings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "d.log", SECONDS)
    file = written(tmp_path, conditional("$variable.`Vehicle.VehicleMotion.Speed` >= 0"))
    result = estimates(capsys, *DBC, "--campaign", file, "--log", tmp_path / "d.log")
    (found,) = result["campaigns"]
    hours = result["seconds"] / 3_600
    triggers = found["triggers_per_hour"] * hours
    assert triggers == pytest.approx(SECONDS - 1, abs=1)
    assert found["samples_per_hour"] * hours == pytest.approx(25 * triggers)
    assert found["bytes_per_hour"] * hours > SEAL_OVERHEAD_BYTES * triggers
    assert found["ring_bytes"] == 25 * 16 + 4_000
    assert main(["estimate", *map(str, DBC), "--campaign", str(file)]) == 0
    assert "its rings take up to 4,400 bytes of memory" in capsys.readouterr().out


def test_a_condition_that_no_database_can_make_true_is_refused_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, conditional("1 < $variable.`Vehicle.VehicleMotion.Sped`"))
    assert main(["estimate", *map(str, DBC), "--campaign", str(file)]) == 1
    assert "expression, character 5: no database of this vehicle has the signal" in capsys.readouterr().err


def test_names_that_no_database_has_are_told_without_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(campaign())
    document["signalsToCollect"] = [{"name": "VehicleMotion.Speed"}, {"name": "VehicleMotion.Sped"}, {"name": "Xyz*"}]
    file = written(tmp_path, json.dumps(document).encode())
    (found,) = estimates(capsys, *DBC, "--campaign", file)["campaigns"]
    assert found["unknown"] == {"VehicleMotion.Sped": "VehicleMotion.Speed", "Xyz*": None}
    assert (found["signals"], found["bytes_per_hour"]) == (1, None)
    assert main(["estimate", *DBC, "--campaign", str(file)]) == 0
    assert "'VehicleMotion.Sped' matches no signal of the databases; did you mean 'VehicleMotion.Speed'?" in (
        capsys.readouterr().out
    )


def test_wrong_files_are_named(tmp_path: Path) -> None:
    write_log(tmp_path / "d.log", 1.0)
    good = ("--campaign", str(written(tmp_path, campaign())))
    log = ("--log", str(tmp_path / "d.log"))
    for arguments, complaint in (
        (("--campaign", "/nonexistent.json", *DBC), "/nonexistent.json"),
        ((*good, "--dbc", "/nonexistent.dbc"), "/nonexistent.dbc"),
        ((*good, "--dbc", f"can7={DATABASES}/demo_body.dbc", *log), "can7.*its buses are can0, can1"),
        ((*good, *DBC, "--log", "/nonexistent.log"), "/nonexistent.log"),
    ):
        parser = argparse.ArgumentParser()
        estimate.add_arguments(parser)
        with pytest.raises(Permanent, match=complaint):
            estimate.run(parser.parse_args(arguments))


@pytest.mark.integration
def test_a_running_agent_stores_the_bytes_that_were_estimated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = write_log(tmp_path / "d.log", SECONDS)
    file = written(tmp_path, campaign(period_ms=10_000))
    result = estimates(capsys, *DBC, "--campaign", file, "--log", tmp_path / "d.log")
    expected = result["campaigns"][0]["bytes_per_hour"] * result["seconds"] / 3_600
    source = f'[[sources]]\nkind = "replay"\nlog = "{tmp_path}/d.log"\nspeed = 0.0'
    car = Car.make(tmp_path, sources=source, telemetry="")
    for own in car.campaigns.glob("*.json"):
        own.unlink()
    car.write_campaigns(json.loads(file.read_bytes()))
    with car.running() as agent:
        agent.until_status(lambda s: sum(s["telemetry"]["frames"].values()) == frames, "collecting the log")
        assert agent.stop() == 0
    stored = [path.stat().st_size for path in (car.state / "spool" / "batches").rglob("*.live.*")]
    # Without a broker no catalogue is confirmed, so each stored batch describes its signals, some 4 kB.  The fleet of
    # the test seals with a shorter key than the estimate assumes.
    described = len(stored) * 4_500
    assert 0 < sum(stored) - expected < described
    assert len(stored) * SEAL_OVERHEAD_BYTES < expected


def test_a_campaign_may_name_vss_paths_of_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "d.log", SECONDS)
    document = json.loads(campaign())
    document["signalsToCollect"] = [{"name": "Vehicle.Speed"}, {"name": "Vehicle.Sped"}]
    leaf = {"datatype": "float", "dbc2vss": {"signal": "VehicleMotion.Speed", "interval_ms": 1_000}}
    gone = {"datatype": "float", "dbc2vss": {"signal": "VehicleMotion.Sped"}}
    mapping = written(tmp_path, json.dumps({"Vehicle.Speed": leaf, "Vehicle.Gone": gone}).encode(), "m.json")
    file = written(tmp_path, json.dumps(document).encode())
    arguments = (*DBC, "--campaign", file, "--log", tmp_path / "d.log", "--mapping", f"can0={mapping}")
    result = estimates(capsys, *arguments)
    (found,) = result["campaigns"]
    assert found["signals"] == 1
    assert found["unknown"] == {"Vehicle.Sped": "Vehicle.Speed"}
    assert found["samples_per_hour"] == pytest.approx(3_600, rel=0.05)
    assert result["notes"] == [
        "Vehicle.Gone: no database has the signal VehicleMotion.Sped; did you mean VehicleMotion.Speed?"
    ]
