"""Publishes a document in the middle of a simulation and nudges all vehicles, which then ask for it at once."""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleet.publishing.nudge import nudge
from fleet.publishing.publish import Publication, publish
from lab.simulate.cloud import Cloud
from lab.simulate.vehicle import Vehicle

FLAGS: Final = 100
PATIENCE_S: Final = 120.0
"""Seconds that the last answer may take.  A vehicle without an answer asks again after 20 to 40 s."""

_LOOK_S: Final = 0.2


async def nudge_all(cloud: Cloud, vehicles: Sequence[Vehicle], folder: Path) -> None:
    """Publish new toggles, nudge all vehicles, and wait until each has its bundle, for at most PATIENCE_S seconds."""
    assert cloud.broker is not None
    file = folder / "toggles.json"
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
    file.write_text(json.dumps({"flags": {f"simulated-{number}": flag for number in range(FLAGS)}}))
    await asyncio.to_thread(publish, cloud.fleet, Publication([("toggles", file)]), now=datetime.now(UTC))
    await nudge(cloud.fleet, cloud.host, cloud.broker.fleet_port)
    deadline_s = time.monotonic() + PATIENCE_S
    while not all(vehicle.sent.answered_s for vehicle in vehicles) and time.monotonic() < deadline_s:
        await asyncio.sleep(_LOOK_S)


def figures_of_nudge(vehicles: Sequence[Vehicle]) -> dict[str, Any]:
    """Return how long vehicles waited for their bundles, and for the acknowledgements of batches meanwhile."""
    asked = [vehicle.sent for vehicle in vehicles if vehicle.sent.asked_s]
    waits_s = [sent.answered_s - sent.asked_s for sent in asked if sent.answered_s]
    begun_s = min((sent.asked_s for sent in asked), default=0.0)
    ended_s = max((sent.answered_s for sent in asked), default=0.0)
    latencies_s = [
        acknowledged_s - sealed_s
        for vehicle in vehicles
        for sealed_s, acknowledged_s in vehicle.sent.acknowledged_s
        if sealed_s < ended_s and acknowledged_s > begun_s
    ]
    return {
        "asked": len(asked),
        "answered": len(waits_s),
        "seconds": max(0.0, ended_s - begun_s),
        "bundle_bytes": max((sent.bundle_bytes for sent in asked), default=0),
        "answer_p99_ms": _p99_ms(waits_s),
        "batches": len(latencies_s),
        "latency_p99_ms": _p99_ms(latencies_s),
    }


def _p99_ms(values_s: Sequence[float]) -> float | None:
    return float(np.percentile(values_s, 99)) * 1e3 if values_s else None
