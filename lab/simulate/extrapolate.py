"""Works out what larger fleets would need from what was measured, and names every assumption.  Pure."""

import math
from dataclasses import dataclass
from typing import Final

DRIVING_H_PER_DAY: Final = 1.0
"""Hours that a car sends on an average day."""

PEAK_SHARE: Final = 0.10
"""Share of the fleet that drives at the busiest minute; the mean is DRIVING_H_PER_DAY / 24."""

UTILISATION: Final = 0.6
"""How busy a core may be at the peak."""

FLEETS: Final = (1_000_000, 34_000_000)


@dataclass(frozen=True, slots=True)
class Measured:
    """Costs of one simulation: CPU seconds and bytes on the air for each batch, broker memory for each connection."""

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
    """The needs of a fleet of `vehicles`."""

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
    """Extrapolate to a fleet of `vehicles`, linearly; see `assumptions`."""
    # The peak decides on cores and memory, the day on traffic and storage.
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
    """Return the assumptions in words, to be read with the figures."""
    return (
        f"each vehicle sends a batch of {measured.batch_samples:,.0f} samples and {measured.batch_bytes:,.0f} bytes "
        f"every {measured.period_s:g} s while it drives, {DRIVING_H_PER_DAY:g} h a day",
        f"{PEAK_SHARE:.0%} of the vehicles drive at the busiest minute; cores are {UTILISATION:.0%} busy then",
        "cost a batch stays as measured here: cores of this machine, linear in vehicles; handshakes, pings and "
        "queries are not counted beyond what this run had of them",
        f"commits hold {measured.batches_per_commit:.0f} batches as here; a receiver under load fills them up to 200, "
        "so this is the upper end",
        "the Delta library on a local disk; an object store has other latencies and a price for each request",
        "brokers as a cluster that forwards nothing between its nodes; mosquitto itself uses one core",
        "a lake takes one commit a table at a time: fleets beyond some ten commits/s need several lakes "
        "(one for a region or group of partitions), and more than the 16 partitions of this one",
    )
