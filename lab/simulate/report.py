"""Formats the figures of a simulation as a table for a terminal.  Pure."""

from collections.abc import Mapping
from typing import Any, Final

_ROWS: Final = (
    ("batches sent", "batches_sent", "{:,}"),
    ("samples sent", "samples_sent", "{:,}"),
    ("lost: batches", "lost_batches", "{:,}"),
    ("lost: samples", "lost_samples", "{:,}"),
    ("double: batches", "double_batches", "{:,}"),
    ("double: samples", "double_samples", "{:,}"),
    ("batches/s", "batches_per_s", "{:,.1f}"),
    ("samples/s", "samples_per_s", "{:,.0f}"),
    ("bytes a batch on the air", "batch_bytes", "{:,.0f}"),
    ("batches a commit", "batches_per_commit", "{:,.1f}"),
    ("sealing to acknowledgement p50, ms", "latency_p50_ms", "{:,.0f}"),
    ("  p95, ms", "latency_p95_ms", "{:,.0f}"),
    ("  p99, ms", "latency_p99_ms", "{:,.0f}"),
    ("CPU a batch: vehicle, ms", "vehicle_cpu_ms_per_batch", "{:,.2f}"),
    ("  broker, ms", "broker_cpu_ms_per_batch", "{:,.2f}"),
    ("  receiver, ms", "receiver_cpu_ms_per_batch", "{:,.2f}"),
    ("memory: vehicles, MB", "vehicles_resident_mb", "{:,.0f}"),
    ("  broker, MB", "broker_resident_mb", "{:,.0f}"),
    ("  receivers, MB", "receivers_resident_mb", "{:,.0f}"),
    ("enrolling all, s", "enrol_s", "{:,.1f}"),
    ("connecting all, s", "connect_s", "{:,.1f}"),
    ("batches sent again", "sent_again", "{:,}"),
)
_NUDGE: Final = (
    ("nudge: vehicles that asked", "asked", "{:,}"),
    ("  that were answered", "answered", "{:,}"),
    ("  first request to last answer, s", "seconds", "{:,.1f}"),
    ("  request to answer p99, ms", "answer_p99_ms", "{:,.0f}"),
    ("  batches that waited meanwhile", "batches", "{:,}"),
    ("  sealing to acknowledgement p99, ms", "latency_p99_ms", "{:,.0f}"),
)
_NEEDS: Final = (
    ("connections at the peak", "connections_at_peak", "{:,}"),
    ("batches/s at the peak", "batches_per_s_at_peak", "{:,.0f}"),
    ("cores for receivers", "receiver_cores", "{:,}"),
    ("cores for brokers", "broker_cores", "{:,}"),
    ("memory of brokers, GB", "broker_memory_gb", "{:,.0f}"),
    ("GB/day on the air", "air_gb_per_day", "{:,.0f}"),
    ("10^9 samples/day", "samples_per_day", "{:,.0f}"),
    ("GB/day into the lake", "lake_gb_per_day", "{:,.0f}"),
    ("commits/day", "lake_commits_per_day", "{:,.0f}"),
)


def render(figures: Mapping[str, Any]) -> str:
    """Return the table as text.  It shows "-" for figures that were not measured."""
    lines = [f"{figures['vehicles']:,} vehicles, a batch every {figures['period_s']:g} s, {figures['seconds']:.0f} s"]
    lines += [f"  {title:38}{_cell(figures[key], form):>16}" for title, key, form in _ROWS]
    if (nudge := figures["nudge"]) is not None:
        lines += [f"  {title:38}{_cell(nudge[key], form):>16}" for title, key, form in _NUDGE]
    needs = figures["extrapolation"]
    if needs:
        lines += ["", f"  {'a fleet of':38}" + "".join(f"{need['vehicles']:>16,}" for need in needs)]
        for title, key, form in _NEEDS:
            cells = (form.format(need[key] / 1e9 if key == "samples_per_day" else need[key]) for need in needs)
            lines.append(f"  {title:38}" + "".join(f"{cell:>16}" for cell in cells))
        lines += ["", "assumptions:", *(f"  - {text}" for text in figures["assumptions"])]
    lines += ["", f"result: {'passed' if figures['passed'] else 'FAILED'}"]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
