"""`check --effective` shows each setting in force and where its value comes from."""

import argparse
import json
from pathlib import Path

import pytest

from agent.commands import check
from agent.errors import Permanent
from tests.agent.car import DATABASES, Car

SETTINGS = (
    b"[uplink]\nin_flight = 9\nmetered_lanes = ['events']\n[bus.can0]\ndbc = [{file = 'a.dbc', encoding = 'gbk'}]"
)


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def shown(car: Car, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    assert check.run(parser.parse_args(["--config", str(car.config), "--effective", *options])) == 0
    return capsys.readouterr().out


def test_each_value_has_its_origin(car: Car, capsys: pytest.CaptureFixture[str]) -> None:
    car.put_in_force({"settings.toml": SETTINGS, "dbc/can0/a.dbc": (DATABASES / "demo_body.dbc").read_bytes()})
    before = sorted((path, path.stat().st_mtime_ns) for path in (car.state / "pushes").rglob("*"))
    found = json.loads(shown(car, capsys, "--json"))
    assert found["release"] == 7
    assert {key: found["settings"][key] for key in ("uplink.in_flight", "uplink.metered_lanes", "uplink.ack")} == {
        "uplink.in_flight": {"value": 9, "origin": "release 7", "remote": True},
        "uplink.metered_lanes": {"value": ["events"], "origin": "release 7", "remote": True},
        "uplink.ack": {"value": "receiver", "origin": "default", "remote": False},
    }
    # agent.toml sets this key, and the release does not.
    assert found["settings"]["telemetry.increment_s"] == {"value": 0.2, "origin": "file", "remote": True}
    assert found["settings"]["bus.can0.dbc"]["value"] == [{"file": "dbc/can0/a.dbc", "encoding": "gbk"}]
    assert found["settings"]["bus.can1.dbc"]["origin"] == "file"
    assert found["settings"]["sources[0].start"]["origin"] == "file"
    assert sorted((path, path.stat().st_mtime_ns) for path in (car.state / "pushes").rglob("*")) == before


def test_without_a_release_the_text_says_so(car: Car, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(car, capsys).splitlines()
    assert "* uplink.in_flight" in "\n".join(lines)
    assert not any("release 7" in line for line in lines)
    assert lines[-1] == f"{car.config}: no release in force; * the fleet can set this key"


def test_a_wrong_file_is_named(car: Car, capsys: pytest.CaptureFixture[str]) -> None:
    car.config.write_text("nonsense = 1")
    with pytest.raises(Permanent, match="nonsense: there is no such key"):
        shown(car, capsys)
