"""Compares the agent with other tools in one run, prints the tables, and writes bench.json and bench.png."""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import Permanent
from agent.system.arguments import whole
from bench import flash
from bench.blocks import block_sizes
from bench.by_agent import AgentDecoder
from bench.by_asammdf import AsammdfDecoder
from bench.by_cantools import CantoolsDecoder
from bench.columns import Different, check_same
from bench.conditions import Conditions, ratios
from bench.drives import CLASSIC, DATA, Drive, demonstration, recorded
from bench.floor import Floor
from bench.picture import draw
from bench.pipeline import Pipeline
from bench.report import render
from bench.sizes import entropy, json_zstd, protobuf_snappy
from bench.timing import interleaved

WINDOWS_S = (30, 5)


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="example: python -m bench --rounds 3 --only mustang --no-storage",
    )
    parser.add_argument(
        "--rounds",
        type=whole(1, 1_000),
        default=7,
        metavar="N",
        help="measure each decoder and pipeline N times (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build"), metavar="DIR", help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="NAME", help="measure only captures whose name contains NAME")
    parser.add_argument(
        "--backlog-mb",
        type=whole(1, 100_000),
        default=1_000,
        metavar="MB",
        help="megabytes of backlog to drain (default: %(default)s)",
    )
    parser.add_argument("--no-storage", action="store_true", help="do not measure receiver, backlog and drain")
    parser.add_argument(
        "--no-processes", action="store_true", help="do not measure capture, memory and start-up (which need vcan)"
    )
    options = parser.parse_args()
    started = time.monotonic()
    options.out.mkdir(exist_ok=True)
    figures: dict[str, Any] = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "notes": []}
    with tempfile.TemporaryDirectory(dir=options.out, prefix="bench-") as name:
        try:
            # All files stay until the end, because some file systems are slow just after many files were removed.
            for drive in _drives(options.only, figures):
                _print(f"{drive.name}: {len(drive.block)} frames, {drive.seconds:.0f} s")
                _add(figures, drive.name, _measure(drive, Path(name) / drive.name, options.rounds, figures["notes"]))
            figures["write_amplification"] = flash.full_batches(Path(name) / "full")
            _print("decoding blocks of one message")
            sizes = block_sizes(options.rounds)
        except Different as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    figures["block_sizes"] = sizes["agent"]
    figures["block_sizes_all"] = sizes
    figures["block_ratio_cantools"] = {n: sizes["agent"][n] / sizes["cantools"][n] for n in sizes["agent"]}
    _summarise(figures)
    if not options.no_storage:
        _storage(figures, options.backlog_mb, options.out)
    if not options.no_processes:
        _processes(figures, options.out.resolve() / "bench")
    figures["seconds"] = round(time.monotonic() - started, 1)
    (options.out / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
    draw(figures, options.out / "bench.png")
    print(render(figures))
    return 0


def _drives(only: str | None, figures: dict[str, Any]) -> "list[Drive]":
    _print("reading the captures")
    drives = [drive for drive in recorded() if only is None or only in drive.name]
    if not drives:
        figures["notes"].append(f"no recorded capture in {DATA} was chosen, so the demonstration vehicle was measured")
        drives = [demonstration()]
    figures["classic"] = [drive.name for drive in drives if drive.kind == CLASSIC]
    return drives


def _measure(drive: Drive, folder: Path, rounds: int, notes: list[str]) -> dict[str, Any]:
    folder.mkdir()
    by_cantools = CantoolsDecoder(drive)
    expected = by_cantools.columns()
    by_agent = {s: AgentDecoder(drive, drive.windows(s)) for s in WINDOWS_S}
    pipelines = {s: Pipeline(drive, drive.windows(s), folder / f"spool-{s}") for s in WINDOWS_S}
    values = check_same(expected, by_agent[30].columns(), f"{drive.name}, our decoder compared with cantools")
    for seconds, pipeline in pipelines.items():
        check_same(expected, pipeline.columns(), f"{drive.name}, batches of {seconds} s compared with cantools")
    ways: dict[str, Callable[[], object]] = {"cantools": by_cantools.decode}
    try:
        by_asammdf = AsammdfDecoder(drive, folder)
        check_same(expected, by_asammdf.columns(), f"{drive.name}, asammdf compared with cantools")
        ways["asammdf"] = by_asammdf.decode
    except Different as error:
        notes.append(f"the ratio to asammdf is missing, because its values differ: {error}")
    ways |= {"agent": by_agent[30].physical, "raw": by_agent[30].raw, "agent 5s": by_agent[5].physical}
    for pipeline in pipelines.values():
        pipeline.forget_times()
    ways |= {f"pipeline {s}s": pipeline.run for s, pipeline in pipelines.items()}
    conditions = Conditions(drive, drive.windows(30), by_cantools)
    triggers = conditions.triggers()
    ways |= {"conditions 30s": conditions.run, "one condition": conditions.one}
    ways["one message by cantools"] = conditions.one_by_cantools
    floors = {s: Floor(pipeline.bodies(), folder / f"floor-{s}") for s, pipeline in pipelines.items()}
    ways |= {f"floor {s}s": floor.run for s, floor in floors.items()}
    taken = interleaved(ways, rounds)
    sizes = {s: pipeline.sizes() for s, pipeline in pipelines.items()}
    windows = pipelines[30].windows()
    result = {
        "frames": len(drive.block),
        "frames_decoded": by_cantools.frames,
        "values_compared": values,
        "seconds_taken": {name: round(seconds, 6) for name, seconds in taken.items()},
        "decode_ratio_cantools": taken["cantools"] / taken["agent"],
        "decode_ratio_cantools_raw": taken["cantools"] / taken["raw"],
        "decode_ratio_cantools_5s": taken["cantools"] / taken["agent 5s"],
        "decode_ratio_asammdf": taken["asammdf"] / taken["agent"] if "asammdf" in taken else None,
        "pipeline_ratio_cantools": taken["cantools"] / taken["pipeline 30s"],
        "pipeline_ratio_cantools_5s": taken["cantools"] / taken["pipeline 5s"],
        "pipeline_cpu_ratio_cantools": taken["cantools"] / pipelines[30].cpu_s,
        "pipeline_cpu_ratio_cantools_5s": taken["cantools"] / pipelines[5].cpu_s,
        "pipeline_ceiling_cantools": taken["cantools"] / taken["floor 30s"],
        "pipeline_ceiling_cantools_5s": taken["cantools"] / taken["floor 5s"],
        "pipeline_frames_per_s": len(drive.block) / taken["pipeline 30s"],
        "pipeline_frames_per_s_5s": len(drive.block) / taken["pipeline 5s"],
        "pipeline_stages_ms": {f"{s}s": dict(pipeline.stages()) for s, pipeline in pipelines.items()},
        "bytes_per_sample": sizes[30][1] / sizes[30][0],
        "bytes_per_sample_5s": sizes[5][1] / sizes[5][0],
        "bytes_per_sample_sealed": sizes[30][2] / sizes[30][0],
        "bytes_per_sample_sealed_5s": sizes[5][2] / sizes[5][0],
        "bytes_per_sample_entropy": entropy(windows) / sizes[30][0],
        "bytes_per_sample_protobuf_snappy": protobuf_snappy(windows) / sizes[30][0],
        "bytes_per_sample_json_zstd": json_zstd(windows) / sizes[30][0],
        "catalogue_bytes": pipelines[30].catalogue_bytes,
        **ratios(taken),
        "condition_triggers": triggers,
        "kbit_per_s": sizes[30][2] * 8 / drive.seconds / 1e3,
    }
    for pipeline in pipelines.values():
        pipeline.close()
    for floor in floors.values():
        floor.close()
    return result | flash.measure(drive, folder)


def _add(figures: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Add the figures of a drive, each under its own key and the name of the drive."""
    for key, value in found.items():
        figures.setdefault(key, {})[name] = value


def _summarise(figures: dict[str, Any]) -> None:
    """Add the mean of each figure of bytes per sample over the captures of cars."""
    classic = figures["classic"]
    for key in ("bytes_per_sample", "bytes_per_sample_5s", "bytes_per_sample_sealed", "bytes_per_sample_sealed_5s"):
        if classic:
            figures[f"{key}_mean"] = sum(figures[key][name] for name in classic) / len(classic)


def _storage(figures: dict[str, Any], backlog_mb: int, out: Path) -> None:
    """Measure the receiver that fills the lake, and the vehicle's spool."""
    from bench import backlog, receiving

    _print("measuring the receiver, from sealed batches to Delta tables")
    figures |= receiving.measure(demonstration(), out)
    _print(f"measuring the spool with up to {max(backlog.BACKLOGS):,} batches, and draining {backlog_mb} MB")
    try:
        figures |= backlog.measure(backlog_mb, out)
    except Permanent as error:
        figures["notes"].append(f"backlog and drain were not measured: {error}")


def _processes(figures: dict[str, Any], folder: Path) -> None:
    """Measure capturing and the running agent, which need separate processes and virtual CAN."""
    from bench import capture, running

    for text, measure in (
        ("capturing with the packet ring, candump and python-can", capture.measure),
        ("the running agent (start-up, memory, wake-ups)", lambda: running.measure(folder)),
    ):
        _print(f"measuring {text} on virtual CAN, which takes a few minutes under User Mode Linux")
        try:
            figures |= measure()
        except RuntimeError as error:
            print(error, file=sys.stderr)  # The note has only the first line, and the cause stands further down.
            figures["notes"].append(f"{text} was not measured: {str(error).strip().splitlines()[0]}")
    _print("measuring the start-up on this machine")
    figures |= running.start_up_here(folder)
    for key in ("capture_cpu_ratio_candump", "capture_cpu_ratio_python_can", "rss_mb", "wakeups_per_s"):
        figures.setdefault(key, None)


def _print(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
