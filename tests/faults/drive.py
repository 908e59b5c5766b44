"""Makes the input of the campaign: a log of recorded captures, agent.toml and campaigns.

Two recordings play side by side with fresh times, each on its own bus, and each begins again when it ends.  One is of
an electric car, whose times step back by up to 24 ms, the other of a satellite receiver.
"""

import heapq
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from tests.shared_data import DATA

CAPTURES = {"can0": ("can/hyundai_kona_2021_pcan_bcan", "can0"), "can1": ("obd2/css_obd2_3BA199E2", "can1")}
"""The name of the capture and its bus within the capture, by bus of the campaign."""

DATABASES = {
    "can0": (DATA / "open" / "dbc" / "kona_pcan.dbc",),
    "can1": (DATA / "open" / "dbc" / "canmod-gps.dbc",),
}
CAMPAIGNS: tuple[dict[str, Any], ...] = tuple(
    {
        "name": name,
        "priority": priority,
        "collectionScheme": {"timeBasedCollectionScheme": {"periodMs": period_ms}},
        "signalsToCollect": [{"name": signals}],
    }
    for priority, (name, signals, period_ms) in enumerate(
        [
            ("place", "gnss_*", 1_000),
            ("speed", "*[Ss]peed*", 1_000),
            ("control", "VCU_*", 3_000),
            ("everything", "*", 6_000),
        ]
    )
)
"""These campaigns have no memory from sample to sample, such as `onChange` or an interval.

The samples that a campaign with memory keeps after SIGKILL depend on the moment of the kill, which the oracle does not
know.
"""

QUOTA_BYTES = 50_000_000
SECTIONS = {
    "telemetry": "increment_s = 0.5\ncheckpoint_s = 1.0",
    "uplink": "ack_timeout_s = 1.5\nkeepalive_s = 5\nbackoff_max_s = 1.5",
}
"""These sections of agent.toml make windows small and waits short, so that a minute holds many batches and retries."""


def source(log: Path, speed: float) -> str:
    """Return the `[[sources]]` table.  With `speed` 0 the log is replayed as fast as possible."""
    return f"""\
[[sources]]
kind = "replay"
log = "{log}"
channels = ["can0", "can1"]
speed = {speed}
"""


LIMITS = {
    "silence_s": 2,
    "batch_max_bytes": 4_096,
    "pending_max_bytes": 4_000,
    "connect_timeout_s": 4,
    "backoff_min_s": 0.2,
}
"""These limits, which no configuration sets, are so tight that the campaign reaches them."""


def spool(quota_bytes: int) -> str:
    """Return the lines of the `[spool]` table."""
    return f"quota_mb = {quota_bytes / 1e6}\nreserve_mb = 0"


def buses() -> str:
    """Return the `[bus.*]` tables."""
    return "\n".join(f"[bus.{bus}]\ndbc = {json.dumps([str(file) for file in DATABASES[bus]])}" for bus in DATABASES)


def write_log(file: Path, seconds: float, start_s: float | None = None) -> int:
    """Write `seconds` of frames as a log that begins at `start_s` (now), and return the number of frames."""
    start_us = round((time.time() if start_s is None else start_s) * 1e6)
    count = 0
    with file.open("w") as log:
        for after_us, _, bus, frame in heapq.merge(*(_loop(bus, round(seconds * 1e6)) for bus in CAPTURES)):
            t_us = start_us + after_us
            log.write(f"({t_us // 1_000_000}.{t_us % 1_000_000:06d}) {bus} {frame}\n")
            count += 1
    return count


def _loop(bus: str, length_us: int) -> Iterator[tuple[int, int, str, str]]:
    """Yield (microseconds from the start, running number, bus, frame), in the order of the capture."""
    frames = _capture(*CAPTURES[bus])
    span_us = max(after_us for after_us, _ in frames) + 10_000
    number = 0
    for lap_us in range(0, length_us, span_us):
        for after_us, frame in frames:
            if lap_us + after_us < length_us:
                yield lap_us + after_us, number, bus, frame
                number += 1


def _capture(name: str, bus: str) -> list[tuple[int, str]]:
    found = []
    with zstandard.open(DATA / "open" / f"{name}.log.zst", "rt") as log:
        for line in log:
            stamp, of, frame = line.split()
            if of == bus:
                found.append((round(float(stamp[1:-1]) * 1e6), frame))
    first_us = min(t_us for t_us, _ in found)
    return [(t_us - first_us, frame) for t_us, frame in found]
