"""Formats the figures as tables for a terminal."""

from collections.abc import Mapping
from typing import Any, Final

_CAPTURES: Final = (
    ("decode 30 s, times cantools", "decode_ratio_cantools", "{:.1f}"),
    ("  raw integers only", "decode_ratio_cantools_raw", "{:.1f}"),
    ("  windows of 5 s", "decode_ratio_cantools_5s", "{:.1f}"),
    ("decode 30 s, times asammdf", "decode_ratio_asammdf", "{:.1f}"),
    ("pipeline 30 s, times cantools", "pipeline_ratio_cantools", "{:.1f}"),
    ("pipeline 5 s, times cantools", "pipeline_ratio_cantools_5s", "{:.1f}"),
    ("  without waiting (CPU), 30 s", "pipeline_cpu_ratio_cantools", "{:.1f}"),
    ("  without waiting (CPU), 5 s", "pipeline_cpu_ratio_cantools_5s", "{:.1f}"),
    ("  sealing and syncing alone, 30 s", "pipeline_ceiling_cantools", "{:.1f}"),
    ("  sealing and syncing alone, 5 s", "pipeline_ceiling_cantools_5s", "{:.1f}"),
    ("pipeline 30 s, 1000 frames/s", "pipeline_frames_per_s", "{:,.0f}"),
    ("ten conditions, added to 30 s, %", "conditions_added_to_pipeline", "{:.0%}"),
    ("  triggers of a run", "condition_triggers", "{:,.0f}"),
    ("  one, of cantools for its message", "condition_ratio_cantools", "{:.3f}"),
    ("bytes per sample, 30 s", "bytes_per_sample", "{:.3f}"),
    ("bytes per sample, 5 s", "bytes_per_sample_5s", "{:.3f}"),
    ("  sealed, 30 s", "bytes_per_sample_sealed", "{:.3f}"),
    ("  sealed, 5 s", "bytes_per_sample_sealed_5s", "{:.3f}"),
    ("  entropy estimate, 30 s", "bytes_per_sample_entropy", "{:.3f}"),
    ("  JSON + zstd", "bytes_per_sample_json_zstd", "{:.2f}"),
    ("  protobuf rows + snappy", "bytes_per_sample_protobuf_snappy", "{:.2f}"),
    ("whole car, sealed, kbit/s", "kbit_per_s", "{:.1f}"),
    ("flash, MB per hour", "flash_bytes_per_hour", "{:,.1f}"),
    ("  with checkpoints every 5 s", "flash_bytes_per_hour_checkpoints", "{:,.1f}"),
    ("bytes written / sealed", "write_amplification_drive", "{:.1f}"),
    ("  with checkpoints every 5 s", "write_amplification_checkpoints", "{:.1f}"),
    ("values compared, thousands", "values_compared", "{:,.0f}"),
)
_PROCESS: Final = (
    ("capture, CPU per frame: ring / candump", "capture_cpu_ratio_candump", "{:.2f}"),
    ("capture, CPU per frame: ring / python-can", "capture_cpu_ratio_python_can", "{:.3f}"),
    ("steady agent: resident memory, MB", "rss_mb", "{:.1f}"),
    ("  packet rings, MB", "rss_rings_mb", "{:.1f}"),
    ("  anonymous memory, MB", "rss_anonymous_mb", "{:.1f}"),
    ("  after importing the libraries only, MB", "rss_imports_mb", "{:.1f}"),
    ("  every signal collected, MB", "rss_everything_mb", "{:.1f}"),
    ("steady agent: frames lost", "steady_frames_lost", "{:,.0f}"),
    ("  every signal collected", "steady_everything_frames_lost", "{:,.0f}"),
    ("steady agent: wake-ups/s per interface", "wakeups_per_s_interface", "{:.1f}"),
    ("steady agent: CPU per frame, us", "steady_cpu_us_per_frame", "{:.1f}"),
    ("  every signal collected, us", "steady_everything_cpu_us_per_frame", "{:.1f}"),
    ("start-up to first captured frame, s", "startup_s", "{:.2f}"),
    ("  times `import numpy`", "startup_ratio_numpy", "{:.1f}"),
    ("  without compiled plans", "startup_cold_ratio_numpy", "{:.1f}"),
    ("until frames are processed, times numpy", "working_ratio_numpy", "{:.1f}"),
    ("  without compiled plans", "working_cold_ratio_numpy", "{:.1f}"),
    ("until ready on this machine, times numpy", "working_ratio_numpy_here", "{:.1f}"),
)
_STORAGE: Final = (
    ("receiver into Delta, 1000 samples/s", "receiver_samples_per_s", "{:,.0f}"),
    ("  CPU seconds per million samples", "receiver_cpu_s_per_million_samples", "{:.2f}"),
    ("bytes written / sealed, full batches", "write_amplification", "{:.2f}"),
    ("append, largest backlog / none", "append_ratio_backlog", "{:.2f}"),
    ("acknowledge, largest backlog / none", "acknowledge_ratio_backlog", "{:.2f}"),
    ("drain, MB/s", "drain_mb_per_s", "{:.1f}"),
    ("  times mosquitto_pub", "drain_ratio_mosquitto", "{:.2f}"),
    ("  with the removal of the files", "drain_removed_ratio_mosquitto", "{:.2f}"),
)
_THOUSANDS: Final = {"pipeline_frames_per_s", "values_compared", "receiver_samples_per_s"}


def render(figures: Mapping[str, Any]) -> str:
    """Return all tables and the notes as text."""
    names = list(figures["decode_ratio_cantools"])
    lines = [f"{'':34}" + "".join(f"{_short(name):>14}" for name in names)]
    for title, key, form in _CAPTURES:
        lines.append(f"{title:34}" + "".join(f"{_cell(figures[key][name], key, form):>14}" for name in names))
    if "bytes_per_sample_mean" in figures:
        mean, mean_5s = figures["bytes_per_sample_mean"], figures["bytes_per_sample_5s_mean"]
        lines.append(f"bytes per sample, mean of the cars: {mean:.3f} (30 s), {mean_5s:.3f} (5 s)")
    lines += [
        "",
        f"{'frames per block (8 signals)':32}{'agent, frames/s':>16}{'times cantools':>16}{'/ numpy bound':>16}",
    ]
    every = figures["block_sizes_all"]
    for size, speed in every["agent"].items():
        ratio, bound = speed / every["cantools"][size], speed / every["numpy"][size]
        lines.append(f"{size:>26,}      {speed:>16,.0f}{ratio:>16.1f}{bound:>16.2f}")
    lines.append("")
    for title, key, form in (*_STORAGE, *_PROCESS):
        lines.append(f"{title:42}{_cell(figures.get(key), key, form):>10}")
    lines += _by_backlog(figures)
    lines += [f"note: {note}" for note in figures["notes"]]
    lines.append(f"{figures['machine']}; {figures['seconds']:.0f} s in all; all compared decoders gave equal values")
    return "\n".join(lines)


def _by_backlog(figures: Mapping[str, Any]) -> list[str]:
    if "append_ms_by_backlog" not in figures:
        return []
    append, acknowledge = figures["append_ms_by_backlog"], figures["acknowledge_ms_by_backlog"]
    rows = [f"{n:>26,}      {append[n]:>16.2f}{acknowledge[n]:>16.2f}" for n in append]
    return ["", f"{'batches in the spool':32}{'append, ms':>16}{'acknowledge, ms':>16}", *rows, ""]


def _cell(value: float | None, key: str, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value / 1_000_000 if key.startswith("flash_") else value / 1_000 if key in _THOUSANDS else value)


def _short(name: str) -> str:
    return name.removeprefix("css_").removeprefix("hyundai_").removeprefix("SYNTHETIC_hyundai_")[:13]
