"""Run `fleet simulate` with few vehicles, and a real broker, receivers, connections and lake."""

import json
from pathlib import Path

import pytest

from lab.mosquitto import Broker
from lab.receiver import Receiver
from lab.simulate.cloud import shares
from tests.agent.car import command
from tests.fleet.vehicles import make_fleet

pytestmark = pytest.mark.integration


def test_twenty_vehicles_lose_nothing_and_double_nothing_over_two_receivers(tmp_path: Path) -> None:
    out = tmp_path / "simulate.json"
    arguments = ("--vehicles", "20", "--minutes", "0.15", "--period", "3", "--receivers", "2", "--out", out)
    done = command("fleet", "simulate", *arguments, seconds=100)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["passed"]
    assert report["batches_sent"] == 20 * (1 + 3)  # one catalogue, and three windows in nine seconds
    lost_or_double = [report[f"{what}_{of}"] for what in ("lost", "double") for of in ("batches", "samples")]
    assert lost_or_double == [0, 0, 0, 0]
    assert 0 < report["latency_p50_ms"] <= report["latency_p95_ms"] <= report["latency_p99_ms"]
    assert min(report[f"{part}_cpu_ms_per_batch"] for part in ("vehicle", "broker", "receiver")) > 0
    assert [need["vehicles"] for need in report["extrapolation"]] == [1_000_000, 34_000_000]
    for text in ("cores for receivers", "assumptions:", "result: passed"):
        assert text in done.stdout


def test_receivers_share_all_partitions() -> None:
    assert shares(1) == ["0-15/16"]
    assert shares(3) == ["0-4/16", "5-9/16", "10-15/16"]


def test_a_given_fleet_is_simulated_compacted_and_asked(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    here = ("--fleet", fleet.root)
    broker = Broker(fleet, tmp_path / "broker")
    receiver = Receiver(fleet, broker.fleet_port, tmp_path / "receiver.log")
    with broker, receiver.running_now():
        arguments = ("--vehicles", "3", "--minutes", "0.1", "--period", "2", "--broker", f"localhost:{broker.port}")
        done = command("fleet", "simulate", *here, *arguments, "--json", seconds=100)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        compacted = command("fleet", "compact", *here, "--json")  # while the receiver runs
        assert compacted.returncode == 0, compacted.stderr
        tables = [line.split(":")[0].removeprefix("  table ") for line in compacted.stderr.splitlines()]
        # The receiver writes the table of vehicles every ten seconds, so it may not be there yet.
        assert tables in (["samples", "events", "batches"], ["samples", "events", "batches", "vehicles"])
        assert receiver.stop() == 0
    assert (report["batches_sent"], report["receiver_cpu_ms_per_batch"], report["extrapolation"]) == (12, None, [])
    records = [json.loads(file.read_text()) for file in fleet.vehicles.glob("*.json")]
    assert [record["revoked"] for record in records] == [True] * 3  # these names must not be used again
    samples, *_ = json.loads(compacted.stdout)
    assert samples["files_before"] > samples["files_after"] == 1

    def asked(*question: str) -> list[dict[str, object]]:
        answer = command("fleet", "query", *here, "--json", *question)
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, object]] = json.loads(answer.stdout)
        return found

    ledger = asked("ledger")
    assert [(line["state"], line["first_seq"], line["last_seq"]) for line in ledger] == [("stored", 1, 4)] * 3
    assert asked("losses", str(records[0]["vehicle"])) == []
    cut = command("fleet", "query", *here, "ledger", "--limit", "2")
    assert (len(cut.stdout.splitlines()), "there may be more" in cut.stderr) == (2 + 2, True)
    assert {line["time_quality"] for line in asked("samples", "--corrected", "--limit", "50")} == {"as stamped"}
    assert command("fleet", "compact", *here, "--dry-run", "--keep-days", "30").stdout.startswith("table")
    wrong = command("fleet", "compact", *here, "--campaign", "simulation")
    assert (wrong.returncode, "--keep-days" in wrong.stderr) == (1, True)
