"""Computes the figures of a simulation from its measurements.  A run passes only if nothing is lost or duplicated."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.simulate.account import Account
from lab.simulate.cloud import Cloud
from lab.simulate.extrapolate import FLEETS, Measured, assumptions, need
from lab.simulate.nudge import figures_of_nudge
from lab.simulate.processes import Usage
from lab.simulate.vehicle import Vehicle


@dataclass(frozen=True, slots=True)
class Plan:
    """Holds the size of a simulation.  `period_s` is both the time between batches and the length of their windows.

    With `nudge`, all vehicles are nudged after half of the time.
    """

    vehicles: int
    minutes: float
    period_s: float
    receivers: int
    nudge: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """Holds the measurements of a finished simulation.

    The vehicles sent windows for `seconds` seconds.  `before` holds the usage of each program just before the first
    window.  `after` holds the usage when all batches were acknowledged, or when the wait for acknowledgements was
    given up.
    """

    vehicles: Sequence[Vehicle]
    account: Account
    before: Mapping[str, Usage]
    after: Mapping[str, Usage]
    seconds: float
    times_s: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Return whether the lake holds every sample exactly once, and every batch was acknowledged as stored."""
        return self.account.adds_up and not any(vehicle.waiting or vehicle.sent.refused for vehicle in self.vehicles)

    @property
    def batches(self) -> int:
        """Return the number of batches with samples.  A batch that holds only a catalogue is not counted."""
        return sum(1 for vehicle in self.vehicles for samples in vehicle.sent.samples.values() if samples)


def figures_of(plan: Plan, cloud: Cloud, measured: Measurement) -> dict[str, Any]:
    """Stop the receivers, read the totals that they report at their end, and return all figures of the simulation."""
    commits = sum(totals["commits"] for totals in cloud.stop_receivers())
    vehicles, account, after, batches = measured.vehicles, measured.account, measured.after, measured.batches
    cpu_s = {program: after[program].cpu_s - measured.before[program].cpu_s for program in after}
    latencies_s = sorted(end - begin for vehicle in vehicles for begin, end in vehicle.sent.acknowledged_s)
    nudged = figures_of_nudge(vehicles) if plan.nudge else None
    figures: dict[str, Any] = {
        "vehicles": plan.vehicles,
        "period_s": plan.period_s,
        "receivers": len(cloud.receivers),
        "seconds": measured.seconds,
        "passed": measured.passed and (nudged is None or nudged["answered"] == plan.vehicles),
        "batches_sent": account.batches_sent,
        "samples_sent": account.samples_sent,
        "lost_batches": account.batches_lost,
        "lost_samples": account.samples_lost,
        "double_batches": account.batches_double,
        "double_samples": account.samples_double,
        "not_acknowledged": sum(vehicle.waiting for vehicle in vehicles),
        "refused": sum(len(vehicle.sent.refused) for vehicle in vehicles),
        "sent_again": sum(vehicle.sent.again for vehicle in vehicles),
        "reconnects": sum(vehicle.sent.reconnects for vehicle in vehicles),
        "batches_per_s": batches / measured.seconds,
        "samples_per_s": account.samples_sent / measured.seconds,
        "batch_bytes": sum(vehicle.sent.size_bytes for vehicle in vehicles) / account.batches_sent,
        "batches_per_commit": account.batches_sent / commits if commits else None,
        **{f"latency_p{p}_ms": _percentile(latencies_s, p) for p in (50, 95, 99)},
        # The programs of an existing fleet cannot be measured, but the figures have the same keys.
        **{f"{program}_cpu_ms_per_batch": None for program in ("broker", "receiver")},
        **{f"{program}_cpu_ms_per_batch": spent / batches * 1e3 for program, spent in cpu_s.items()},
        "vehicles_resident_mb": after["vehicle"].resident_bytes / 1e6,
        "broker_resident_mb": after["broker"].resident_bytes / 1e6 if "broker" in after else None,
        "receivers_resident_mb": after["receiver"].resident_bytes / 1e6 if "receiver" in after else None,
        "lake_bytes": None if cloud.broker is None else _size(cloud.fleet.lake),
        "nudge": nudged,
        **measured.times_s,
    }
    return figures | ({"extrapolation": [], "assumptions": []} if cloud.broker is None else _extrapolated(figures))


def _extrapolated(figures: Mapping[str, Any]) -> dict[str, Any]:
    vehicles = figures["vehicles"]
    measured = Measured(
        period_s=figures["period_s"],
        batch_bytes=figures["batch_bytes"],
        # One batch of each vehicle carries only its catalogue and no samples.
        batch_samples=figures["samples_sent"] / (figures["batches_sent"] - vehicles),
        broker_cpu_s=figures["broker_cpu_ms_per_batch"] / 1e3,
        receiver_cpu_s=figures["receiver_cpu_ms_per_batch"] / 1e3,
        broker_bytes_per_connection=figures["broker_resident_mb"] * 1e6 / vehicles,
        batches_per_commit=figures["batches_per_commit"],
        lake_bytes_per_sample=figures["lake_bytes"] / figures["samples_sent"],
    )
    return {
        "extrapolation": [asdict(need(fleet, measured)) for fleet in FLEETS],
        "assumptions": list(assumptions(measured)),
    }


def _percentile(ordered_s: Sequence[float], percent: int) -> float | None:
    # statistics.quantiles needs at least two values.
    if len(ordered_s) < 2:
        return ordered_s[0] * 1e3 if ordered_s else None
    return statistics.quantiles(ordered_s, n=100, method="inclusive")[percent - 1] * 1e3


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
