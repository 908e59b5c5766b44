"""A nudge makes the whole fleet ask for its release at once, and acknowledgements go on."""

import json
from pathlib import Path

import pytest

from tests.agent.car import command
from tests.attack_report import RecordAttack
from tests.attacks.test_hostile_vehicle import MEASURING, P99_S

pytestmark = pytest.mark.integration

VEHICLES = 2_000 if MEASURING else 40
MINUTES = 1.0 if MEASURING else 0.2
PERIOD_S = 30.0 if MEASURING else 2.0


@pytest.mark.timeout(1_200)
@pytest.mark.attack(
    "4",
    "the whole fleet is nudged at once",
    how="All vehicles are nudged while they send (2,000 in make attacks), and all ask for the whole release at once.",
    before="every acknowledgement starved",
)
def test_a_nudge_to_the_whole_fleet_delays_no_acknowledgement(tmp_path: Path, attack: RecordAttack) -> None:
    arguments = ("--vehicles", str(VEHICLES), "--minutes", str(MINUTES), "--period", str(PERIOD_S), "--nudge")
    done = command("fleet", "simulate", *arguments, "--out", tmp_path / "report.json", seconds=1_100)
    report = json.loads((tmp_path / "report.json").read_text())
    nudged = report["nudge"]
    attack(figure=nudged | {"vehicles": VEHICLES, "latency_p99_of_all_ms": report["latency_p99_ms"]})
    assert done.returncode == 0, done.stderr
    assert nudged["asked"] == nudged["answered"] == VEHICLES
    assert (report["lost_batches"], report["double_batches"], report["not_acknowledged"]) == (0, 0, 0)
    assert nudged["batches"] > 0
    if MEASURING:
        assert nudged["latency_p99_ms"] < P99_S * 1_000
