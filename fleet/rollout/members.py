"""Counts the receipts of the vehicles of a roll-out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.formats.down.audience import Attributes, Audience, draw, parse_audience, salt_of, selects
from fleet.lake.location import Location
from fleet.lake.reported import Receipt, receipts_since
from fleet.lake.vehicles import Enrolled, enrolled_vehicles
from fleet.publishing.staged import share_name
from fleet.rollout.judge import Tally
from fleet.rollout.plan import Rollout, StageRecord
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry

_PPM_OF_PERCENT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Tallies:
    """Holds the counts of each stage's own vehicles, and of all together."""

    stages: tuple[Tally, ...]
    everyone: Tally


def count(fleet: FleetFolder, lake: Location, rollout: Rollout) -> Tallies:
    """Count the vehicles of each stage of `rollout`, and what they have reported since the stage reached them.

    Raises: Permanent if the registry or the lake cannot be read.
    """
    enrolled = enrolled_vehicles(lake, Registry(fleet.vehicles))
    entered = stages_of(enrolled, rollout)
    return tally(entered, rollout.stages, receipts_since(lake, rollout.stages[0].version))


def stages_of(enrolled: Mapping[str, Enrolled], rollout: Rollout) -> dict[str, int]:
    """Return the index of the stage that reached each vehicle.  Vehicles that no stage has reached are left out."""
    audience = parse_audience(rollout.audience)
    names = list(rollout.documents)
    salt, limits = salt_of(share_name(names)), [stage.percent * _PPM_OF_PERCENT for stage in rollout.stages]
    entered = {}
    for vehicle, each in enrolled.items():
        if each.revoked or not _selected(audience, vehicle, each, names):
            continue
        drawn = draw(salt, vehicle)
        index = next((index for index, limit in enumerate(limits) if drawn < limit), None)
        if index is not None:
            entered[vehicle] = index
    return entered


def tally(entered: Mapping[str, int], stages: Iterable[StageRecord], receipts: Iterable[Receipt]) -> Tallies:
    """Count `receipts` for each stage.  A receipt counts from the version with which the stage reached its vehicle."""
    versions = [stage.version for stage in stages]
    failed: dict[str, str] = {}
    confirmed: set[str] = set()
    for receipt in receipts:
        index = entered.get(receipt.vehicle)
        if index is None or receipt.version < versions[index]:
            continue
        if receipt.failed:
            failed[receipt.vehicle] = receipt.reason or "unknown"
        elif receipt.confirmed:
            confirmed.add(receipt.vehicle)
    everyone, each = Tally(), [Tally() for _ in versions]
    for vehicle, index in entered.items():
        for counted in (everyone, each[index]):
            counted.vehicles += 1
            if vehicle in failed:
                counted.failed += 1
                counted.reasons[failed[vehicle]] += 1
            elif vehicle in confirmed:
                counted.confirmed += 1
    return Tallies(tuple(each), everyone)


def _selected(audience: Audience, vehicle: str, each: Enrolled, names: list[str]) -> bool:
    attributes = Attributes(vehicle, each.brand, each.model, each.market, each.model_year, each.software or "")
    return selects(audience, attributes, share_name(names))
