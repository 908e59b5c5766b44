"""`fleet simulate` in small: real broker, receivers, connections and lake."""

import json
from pathlib import Path

import pytest

from fleet.simulate.run import shares
from tests.agent.car import command

pytestmark = pytest.mark.integration


def test_twenty_vehicles_lose_nothing_and_double_nothing_over_two_receivers(tmp_path: Path) -> None:
    out = tmp_path / "simulate.json"
    arguments = ("--vehicles", "20", "--minutes", "0.15", "--period", "3", "--receivers", "2", "--out", out)
    done = command("fleet", "simulate", *arguments, seconds=100)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["passed"]
    assert report["batches_sent"] == 20 * (1 + 3)  # the catalogue, and three windows in nine seconds
    lost_or_double = [report[f"{what}_{of}"] for what in ("lost", "double") for of in ("batches", "samples")]
    assert lost_or_double == [0, 0, 0, 0]
    assert 0 < report["latency_p50_ms"] <= report["latency_p95_ms"] <= report["latency_p99_ms"]
    assert min(report[f"{part}_cpu_ms_per_batch"] for part in ("vehicle", "broker", "receiver")) > 0
    assert [need["vehicles"] for need in report["extrapolation"]] == [1_000_000, 34_000_000]
    for text in ("cores for receivers", "assuming that", "result: passed"):
        assert text in done.stdout


def test_receivers_share_all_partitions() -> None:
    assert shares(1) == ["0-15/16"]
    assert shares(3) == ["0-4/16", "5-9/16", "10-15/16"]
