"""Estimates the needs of larger fleets from the costs of a simulation, and states every assumption.  Pure."""

import math
from dataclasses import dataclass
from typing import Final

DRIVING_H_PER_DAY: Final = 1.0
"""Hours for which a car drives and sends on an average day."""

PEAK_SHARE: Final = 0.10
"""Fraction of the fleet that drives at the busiest minute.  The mean fraction is DRIVING_H_PER_DAY / 24."""

UTILISATION: Final = 0.6
"""Fraction of its time for which a core may be busy at the peak."""

FLEETS: Final = (1_000_000, 34_000_000)


@dataclass(frozen=True, slots=True)
class Measured:
    """Holds the costs of one simulation.

    `batch_bytes`, `batch_samples`, `broker_cpu_s` and `receiver_cpu_s` are averages for one batch.
    `broker_bytes_per_connection` is the broker's memory for each connection.
    """

    period_s: float
    batch_bytes: float
    batch_samples: float
    broker_cpu_s: float
    receiver_cpu_s: float
    broker_bytes_per_connection: float
    batches_per_commit: float
    lake_bytes_per_sample: float


@dataclass(frozen=True, slots=True)
class Need:
    """Holds the estimated needs of a fleet of `vehicles` vehicles."""

    vehicles: int
    connections_at_peak: int
    batches_per_s_at_peak: float
    receiver_cores: int
    broker_cores: int
    broker_memory_gb: float
    air_gb_per_day: float
    samples_per_day: float
    lake_gb_per_day: float
    lake_commits_per_day: float


def need(vehicles: int, measured: Measured) -> Need:
    """Extrapolate the costs linearly to a fleet of `vehicles` vehicles (see `assumptions`)."""
    # Cores and memory follow from the busiest minute, traffic and storage from the whole day.
    online = math.ceil(vehicles * PEAK_SHARE)
    at_peak = online / measured.period_s
    per_day = vehicles * DRIVING_H_PER_DAY * 3_600 / measured.period_s
    samples = per_day * measured.batch_samples
    return Need(
        vehicles=vehicles,
        connections_at_peak=online,
        batches_per_s_at_peak=at_peak,
        receiver_cores=math.ceil(at_peak * measured.receiver_cpu_s / UTILISATION),
        broker_cores=math.ceil(at_peak * measured.broker_cpu_s / UTILISATION),
        broker_memory_gb=online * measured.broker_bytes_per_connection / 1e9,
        air_gb_per_day=per_day * measured.batch_bytes / 1e9,
        samples_per_day=samples,
        lake_gb_per_day=samples * measured.lake_bytes_per_sample / 1e9,
        lake_commits_per_day=per_day / measured.batches_per_commit,
    )


def assumptions(measured: Measured) -> tuple[str, ...]:
    """Return the assumptions of `need` as sentences for the report."""
    return (
        f"Each vehicle sends a batch of {measured.batch_samples:,.0f} samples and {measured.batch_bytes:,.0f} bytes "
        f"every {measured.period_s:g} s while it drives, {DRIVING_H_PER_DAY:g} h a day.",
        f"At the busiest minute, {PEAK_SHARE:.0%} of the vehicles drive, and cores are {UTILISATION:.0%} busy.",
        "The cost of a batch stays as measured here, with the cores of this machine. Handshakes, pings and queries are "
        "counted only as far as they occurred in this run.",
        f"A commit holds {measured.batches_per_commit:.0f} batches, as in this run. A busy receiver puts up to 200 "
        "batches into a commit, so larger fleets need fewer commits than shown.",
        "The lake is on a local disk. An object store has other latencies, and a price for each request.",
        "The brokers form a cluster that forwards nothing between its nodes. mosquitto itself uses one core.",
        "A table takes one commit at a time. A fleet with more than some ten commits/s needs several lakes, for "
        "example one for each region. It also needs more than the 16 partitions of this project.",
    )
