"""Test how the needs of larger fleets follow from measured figures."""

import pytest

from lab.simulate.extrapolate import Measured, assumptions, need

MEASURED = Measured(
    period_s=30.0,
    batch_bytes=4_000.0,
    batch_samples=1_000.0,
    broker_cpu_s=0.000_3,
    receiver_cpu_s=0.006,
    broker_bytes_per_connection=30_000.0,
    batches_per_commit=100.0,
    lake_bytes_per_sample=2.0,
)


def test_needs_follow_from_the_stated_assumptions() -> None:
    million = need(1_000_000, MEASURED)
    assert million.connections_at_peak == 100_000  # a tenth of the vehicles drives at the peak
    assert million.batches_per_s_at_peak == pytest.approx(100_000 / 30)
    assert million.receiver_cores == 34  # 3,333 x 6 ms / 0.6
    assert million.broker_cores == 2
    assert million.broker_memory_gb == pytest.approx(3.0)
    assert million.air_gb_per_day == pytest.approx(480)  # 120 batches a vehicle a day
    assert million.samples_per_day == pytest.approx(1.2e11)
    assert million.lake_gb_per_day == pytest.approx(240)
    assert million.lake_commits_per_day == pytest.approx(1_200_000)


def test_the_assumptions_name_the_figures_they_rest_on() -> None:
    text = " ".join(assumptions(MEASURED))
    for figure in ("1,000 samples", "4,000 bytes", "30 s", "1 h a day", "10%", "60%", "100 batches"):
        assert figure in text
