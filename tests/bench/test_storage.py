"""The benchmarks of receiver, backlog and drain run on small inputs.  No test judges a time."""

import pytest

from bench import backlog, receiving
from bench.drives import demonstration

pytestmark = pytest.mark.integration


def test_every_sample_of_the_drive_is_received(tmp_path):
    figures = receiving.measure(demonstration(seconds=6.0), tmp_path)
    assert figures["receiver_samples"] > 100_000
    assert figures["receiver_cpu_s_per_million_samples"] > 0


def test_costs_are_told_by_backlog(tmp_path, monkeypatch):
    monkeypatch.setattr(backlog, "TURNS", 3)
    figures = backlog.costs(tmp_path / "costs", (0, 50))
    assert figures["append_ms_by_backlog"].keys() == figures["acknowledge_ms_by_backlog"].keys() == {0, 50}
    assert figures["append_ratio_backlog"] > 0


def test_uplink_and_mosquittos_client_publish_the_same_number_of_bytes(tmp_path):
    figures = backlog.drain(tmp_path / "drain", 2)
    assert figures["drain_batches"] == 36
    lines = (tmp_path / "drain" / "lines").read_bytes()
    assert len(lines) == 36 * (backlog.DRAIN_BATCH_BYTES + 1)
    assert lines.count(b"\n") == 36
    assert not list((tmp_path / "drain" / "spool").rglob("*.batch"))  # all batches are delivered
    assert figures["drain_ratio_mosquitto"] >= figures["drain_removed_ratio_mosquitto"] > 0
