"""Test the estimates of campaigns from a real lake and from a log, and what exceeds the budget."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.campaign import Campaign, parse_campaign
from agent.formats.up.columns import ColumnGroup, Window
from fleet.commands.publish import add_arguments, run
from fleet.lake.recorded_rates import RecordedRates
from fleet.publishing.campaign_costs import Cost, _cost, costs_by_lake
from fleet.publishing.population import Population
from fleet.receiving.message import Message
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from tests.agent.car import DATABASES, write_log
from tests.fleet.vehicles import Vehicle, make_window

WINDOW_S = 60
WINDOWS = 3
RATE_HZ = 50


def windows(now_us: int) -> Iterator[Window]:
    """Yield windows of 60 s, in which Speed.VehicleSpeed is a random walk and Speed.Gear seldom changes."""
    random = np.random.default_rng(7)
    count = WINDOW_S * RATE_HZ
    for number in range(WINDOWS):
        start_us = now_us - (WINDOWS - number) * WINDOW_S * 1_000_000
        t_us = start_us + np.arange(count, dtype=np.int64) * (1_000_000 // RATE_HZ)
        (group,) = make_window(1).groups
        raw = np.stack([30_000 + np.cumsum(random.integers(-40, 41, count)), np.arange(count) // 500 % 3])
        made = ColumnGroup(t_us, group.signals, raw.astype(np.int64), group.tables)
        window = make_window(1)
        yield replace(window, start_us=start_us, end_us=start_us + WINDOW_S * 1_000_000, groups=(made,), events=())


@pytest.fixture
def sent_bytes(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> int:
    """Bring three windows into the lake, and return how many bytes the vehicle sent."""
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    batches = [vehicle.batch(number, window) for number, window in enumerate(windows(now_us), 1)]
    assert store.take_in([Message(vehicle.topic, batch) for batch in batches]) == len(batches)
    store.land()
    return sum(map(len, batches))


def asking(*signals: dict[str, Any], period_s: int = WINDOW_S) -> bytes:
    scheme = {"timeBasedCollectionScheme": {"periodMs": period_s * 1_000}}
    return json.dumps({"name": "c", "collectionScheme": scheme, "signalsToCollect": list(signals)}).encode()


def costs(fleet: FleetFolder, document: bytes, today: date | None = None) -> list[Cost]:
    campaign: Campaign = parse_campaign(document, "c.json")
    population = Population.of(Registry(fleet.vehicles))
    everyone = frozenset(population.models)
    return costs_by_lake([(campaign, everyone)], population, str(fleet.lake), today or datetime.now(UTC).date())


def test_the_campaign_that_was_recorded_costs_what_was_sent(fleet: FleetFolder, sent_bytes: int) -> None:
    (cost,) = costs(fleet, asking({"name": "Speed.*"}))
    hours = WINDOWS * WINDOW_S / 3_600
    assert cost.model == "Demo Hatch"
    assert cost.bytes_per_hour == pytest.approx(sent_bytes / hours, rel=0.1)
    assert "1 vehicle" in cost.basis


@pytest.mark.usefixtures("sent_bytes")
def test_a_campaign_is_thinned_as_it_asks(fleet: FleetFolder) -> None:
    def body(*signals: dict[str, Any]) -> float:
        (cost,) = costs(fleet, asking(*signals))
        (nothing,) = costs(fleet, asking({"name": "Speed.Gear", "maxSampleCount": 1}))
        assert cost.bytes_per_hour is not None
        assert nothing.bytes_per_hour is not None
        return cost.bytes_per_hour - nothing.bytes_per_hour

    full = body({"name": "Speed.VehicleSpeed"})
    # 50 Hz, 10 Hz, and 600 samples in a window of 60 s; a tenth is left for the one sample of `nothing`.
    assert body({"name": "Speed.VehicleSpeed", "minimumSamplingIntervalMs": 100}) == pytest.approx(full / 5, rel=0.1)
    assert body({"name": "Speed.VehicleSpeed", "maxSampleCount": 600}) == pytest.approx(full / 5, rel=0.1)
    assert body({"name": "Speed.*"}) == pytest.approx(2 * full, rel=0.1)
    # The exact name comes before the glob, as in the vehicle.
    both = body({"name": "*"}, {"name": "Vehicle.Speed.Gear", "minimumSamplingIntervalMs": 10_000})
    assert both == pytest.approx(full, rel=0.1)


@pytest.mark.usefixtures("sent_bytes")
def test_names_that_no_vehicle_has_sent_are_told_with_the_nearest(fleet: FleetFolder) -> None:
    (cost,) = costs(fleet, asking({"name": "Speed.VehicelSpeed"}, {"name": "Speed.Gear"}))
    assert cost.unknown == {"Speed.VehicelSpeed": "Speed.VehicleSpeed"}
    assert cost.warnings() == [
        "Campaign c: 'Speed.VehicelSpeed' matches no signal of what Demo Hatch has sent; "
        "did you mean 'Speed.VehicleSpeed'?"
    ]


@pytest.mark.usefixtures("sent_bytes")
def test_a_model_that_has_sent_nothing_lately_has_no_estimate(fleet: FleetFolder) -> None:
    (cost,) = costs(fleet, asking({"name": "*"}), today=date(2035, 1, 1))
    assert cost.bytes_per_hour is None


@pytest.mark.parametrize(
    ("hours", "words"),
    [(24 / 3_600, "extrapolated from 24 s"), (0.5, "extrapolated from 30 min"), (1_234.5, "from 1,234.5 h")],
)
def test_an_estimate_says_from_how_much_driving_it_comes(hours: float, words: str) -> None:
    rates = RecordedRates(1, hours, {("can0", "Speed"): 1.0}, 4.0)
    cost = _cost(parse_campaign(asking({"name": "Speed"}), "c.json"), "Demo Hatch", rates)
    assert f"from each Demo Hatch ({words} of 1 vehicle in the lake)" in cost.line()


@pytest.mark.parametrize(
    ("brand", "model", "words"),
    [
        ("Aria", "One", "Aria One"),
        ("Aria", "unknown", "Aria of unknown model"),
        ("unknown", "One", "One of unknown brand"),
        ("unknown", "unknown", "vehicle of unknown brand and model"),
    ],
)
def test_what_is_unknown_of_a_model_is_said(brand: str, model: str, words: str) -> None:
    assert Population({Attributes("", brand, model, "EU", 2026): ("v",)}).models == {"v": words}


def command(fleet: FleetFolder, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments, argparse.Namespace(fleet=fleet.root, json=True)))


@pytest.mark.usefixtures("sent_bytes")
def test_what_exceeds_the_budget_is_not_signed_unless_it_is_meant(
    fleet: FleetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(asking({"name": "*"}))
    with pytest.raises(Permanent, match=r"c: about 0\.\d+ MB an hour from each Demo Hatch.*--yes-this-is-large"):
        command(fleet, "--campaign", str(file), "--budget-mb", "0.1")
    assert not list(fleet.targets.rglob("*.json"))
    assert command(fleet, "--campaign", str(file)) == 0
    (cost,) = json.loads(capsys.readouterr().out)["campaigns"]
    assert (cost["model"], cost["unknown"]) == ("Demo Hatch", {})
    assert command(fleet, "--campaign", str(file), "--budget-mb", "0.1", "--yes-this-is-large") == 0


def test_a_log_gives_the_figure_of_the_vehicles_own_code_and_the_databases_name_what_is_misspelt(
    fleet: FleetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "d.log", 10.0)
    file = tmp_path / "c.json"
    file.write_bytes(asking({"name": "*"}, {"name": "VehicleMotion.Sped"}, period_s=5))
    dbc = ("--dbc", f"can0={DATABASES}/demo_powertrain.dbc", "--dbc", f"can1={DATABASES}/demo_body.dbc")
    log = ("--log", str(tmp_path / "d.log"))
    with pytest.raises(Permanent, match=r"campaign c: about 1\d\.\d+ MB an hour \(.*d\.log, 10 s\)"):
        command(fleet, "--campaign", str(file), *dbc, *log)
    capsys.readouterr()
    assert command(fleet, "--campaign", str(file), *dbc, *log, "--yes-this-is-large", "--dry-run") == 0
    shown = capsys.readouterr()
    warning = "Campaign c: 'VehicleMotion.Sped' matches no signal of the databases; did you mean 'VehicleMotion.Speed'?"
    assert warning in shown.err
    assert json.loads(shown.out)["warnings"] == [warning]
    assert command(fleet, "--campaign", str(file), *dbc, "--dry-run") == 0
    assert warning in capsys.readouterr().err
    with pytest.raises(Permanent, match="also give --dbc"):
        command(fleet, "--campaign", str(file), *log)
    with pytest.raises(Permanent, match=r"could not be tried.*nonexistent\.log"):
        command(fleet, "--campaign", str(file), *dbc, "--log", "/nonexistent.log")


def conditional(name: str, ring: int) -> bytes:
    condition = {"expression": "$variable.`Vehicle.VehicleMotion.Speed` >= 0"}
    return json.dumps(
        {
            "name": name,
            "collectionScheme": {"conditionBasedCollectionScheme": condition},
            "signalsToCollect": [{"name": "VehicleMotion.Speed", "maxSampleCount": ring}],
        }
    ).encode()


@pytest.mark.parametrize("with_databases", [False, True])
def test_a_campaign_whose_rings_a_vehicle_cannot_hold_is_not_signed(
    fleet: FleetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], with_databases: bool
) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(conditional("c", 2_000_000))
    dbc = ("--dbc", f"can0={DATABASES}/demo_powertrain.dbc") if with_databases else ()
    with pytest.raises(
        Permanent, match=r"c: .* its rings take up to 32\.00 MB of memory; a vehicle has 20 MB .*--rings-mb"
    ):
        command(fleet, "--campaign", str(file), *dbc)
    assert not list(fleet.targets.rglob("*.json"))
    assert command(fleet, "--campaign", str(file), *dbc, "--rings-mb", "64", "--dry-run") == 0
    (cost,) = json.loads(capsys.readouterr().out)["campaigns"]
    assert cost["ring_bytes"] == 32_000_000 + (4_000 if with_databases else 0)


@pytest.mark.usefixtures("sent_bytes")
def test_the_lake_cannot_say_how_often_a_condition_is_true(fleet: FleetFolder) -> None:
    (cost,) = costs(fleet, conditional("c", 100).replace(b"VehicleMotion.Speed", b"Speed.VehicelSpeed"))
    assert (cost.bytes_per_hour, cost.ring_bytes) == (None, 1_600)
    assert "--log and --dbc" in cost.line()
    assert cost.unknown == {
        "Speed.VehicelSpeed": "Speed.VehicleSpeed",
        "Vehicle.Speed.VehicelSpeed": "Speed.VehicleSpeed",
    }


def test_without_any_figure_the_publisher_is_told_how_to_get_one(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(asking({"name": "*"}))
    assert command(fleet, "--campaign", str(file)) == 0
    assert "There is no estimate of the campaigns' bytes; give a recorded drive" in capsys.readouterr().err
    assert vehicle.name in json.dumps(json.loads(Path(next(fleet.vehicles.glob("*.json"))).read_text()))
