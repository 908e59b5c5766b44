"""Says how often vehicles have sent each signal, and how many bytes a sample took, from what the lake holds.

The figures are per second of collecting: the windows of a campaign, added up.  If several campaigns have collected a
signal, the one with the most samples counts, because the others thinned it more.  A signal that no campaign has
collected at its full rate therefore looks rarer than it is on the bus.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from fleet.lake.location import Location
from fleet.lake.query import query

DAYS: Final = 30
"""Only batches of the last days are read, so the time of a question does not grow with the age of a fleet."""
VEHICLES: Final = 20
"""The number of vehicles whose samples are counted; vehicles of one model send much the same."""

_LEAST_BYTES: Final = 0.05
"""The least bytes of a sample; real cars take 0.10 to 0.23 with every signal in long windows."""

_COLLECTED: Final = """
    SELECT vehicle, campaign, sum(epoch("end") - epoch(start)) AS seconds, count(*) AS batches,
           sum(samples)::BIGINT AS samples, sum(bytes)::BIGINT AS bytes
    FROM batches WHERE date >= $since AND samples > 0 AND list_contains($vehicles, vehicle)
    GROUP BY vehicle, campaign ORDER BY vehicle, campaign"""
_ACTIVE: Final = """
    SELECT vehicle FROM batches WHERE date >= $since AND samples > 0
    GROUP BY vehicle ORDER BY max(received) DESC, vehicle"""
_COUNTED: Final = """
    SELECT vehicle, campaign, bus, signal, count(*) AS samples
    FROM samples WHERE date >= $since AND list_contains($vehicles, vehicle)
    GROUP BY vehicle, campaign, bus, signal"""


@dataclass(frozen=True, slots=True)
class RecordedRates:
    """Holds what some vehicles of one kind have sent.

    `per_second` has the samples of each (bus, signal) in a second.  `batch_bytes` is the fixed cost of a batch, which
    `bytes_per_sample` leaves out.
    """

    vehicles: int
    hours: float
    per_second: dict[tuple[str, str], float]
    bytes_per_sample: float


def active_vehicles(lake: str | Location, today: date) -> list[str]:
    """Return the vehicles that have sent samples lately, those that sent last first.

    Raises: Permanent if there is no lake.
    """
    return [str(name) for name in query(lake, _ACTIVE, {"since": _since(today)}).column("vehicle").to_pylist()]


def recorded_rates(
    lake: str | Location, vehicles: Collection[str], today: date, *, batch_bytes: int
) -> RecordedRates | None:
    """Return what `vehicles` have sent lately, or None if they have sent no samples.

    `batch_bytes` is the fixed cost of a batch.  Raises: Permanent if there is no lake.
    """
    wanted = {"since": _since(today), "vehicles": sorted(vehicles)}
    collected = query(lake, _COLLECTED, wanted).to_pylist()
    seconds: dict[str, float] = {}
    by_vehicle: dict[str, float] = {}
    for row in collected:
        seconds[row["campaign"]] = seconds.get(row["campaign"], 0.0) + row["seconds"]
        by_vehicle[row["vehicle"]] = max(by_vehicle.get(row["vehicle"], 0.0), row["seconds"])
    samples = sum(row["samples"] for row in collected)
    if not samples or not sum(seconds.values()):
        return None
    counts: dict[tuple[str, str, str], int] = {}
    for row in query(lake, _COUNTED, wanted).to_pylist():
        key = (row["campaign"], row["bus"], row["signal"])
        counts[key] = counts.get(key, 0) + row["samples"]
    per_second: dict[tuple[str, str], float] = {}
    for (campaign, bus, signal), count in counts.items():
        if seconds.get(campaign):
            per_second[bus, signal] = max(per_second.get((bus, signal), 0.0), count / seconds[campaign])
    net_bytes = sum(row["bytes"] - row["batches"] * batch_bytes for row in collected)
    return RecordedRates(
        len(by_vehicle), sum(by_vehicle.values()) / 3_600, per_second, max(net_bytes / samples, _LEAST_BYTES)
    )


def _since(today: date) -> date:
    return today - timedelta(days=DAYS)
