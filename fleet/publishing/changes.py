"""Finds what a publication changes, for which vehicles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tuf.api.metadata import TargetFile

from fleet.publishing.population import Population

_LISTED: Final = 8
"""The number of brands and markets that one line of text names; JSON has all of them."""


@dataclass(frozen=True, slots=True)
class Change:
    """Says what a publication does to one document.

    `document` is the path that the document's own name gives.  `gained` are the vehicles that get the document for the
    first time, `updated` those that get another content, and `lost` those from which the publication takes it away.
    `withdrawn` says that the publisher has asked for the removal of the document, and `reached` that a vehicle gets the
    document from then on.
    """

    document: str
    gained: frozenset[str]
    updated: frozenset[str]
    lost: frozenset[str]
    withdrawn: bool = False
    reached: bool = True

    def as_dict(self, population: Population) -> dict[str, object]:
        """Return the change in plain values for JSON, with vehicles counted by brand and market."""
        return {
            "document": self.document,
            "withdrawn": self.withdrawn,
            "gained": _counted(self.gained, population),
            "updated": _counted(self.updated, population),
            "lost": _counted(self.lost, population),
        }

    def lines(self, population: Population) -> list[str]:
        """Return the change in words."""
        parts = []
        for verb, vehicles in (
            ("new for", self.gained),
            ("changed for", self.updated),
            ("taken away from", self.lost),
        ):
            if vehicles:
                parts.append(f"{self.document}: {verb} {in_words(vehicles, population)}")
        if parts:
            return parts
        if self.withdrawn or not self.reached:
            return [f"{self.document}: {'withdrawn' if self.withdrawn else 'published'}, reaches no vehicle"]
        return [f"{self.document}: nothing changes for any vehicle (its audience is recorded anew)"]


def changes_of(
    before: Mapping[str, Sequence[TargetFile]], after: Mapping[str, Sequence[TargetFile]], population: Population
) -> tuple[Change, ...]:
    """Return what changes between two publications, whose targets are given by the path of the document's own name."""
    found = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        old, new = _contents(before.get(name, ()), population), _contents(after.get(name, ()), population)
        had, gets = old.keys(), new.keys()
        updated = frozenset(vehicle for vehicle in had & gets if old[vehicle] != new[vehicle])
        gained, lost = frozenset(gets - had), frozenset(had - gets)
        found.append(Change(name, gained, updated, lost, withdrawn=name not in after, reached=bool(new)))
    return tuple(found)


def _contents(targets: Sequence[TargetFile], population: Population) -> dict[str, str]:
    """Return the hash of the content that each vehicle gets, because a staged roll-out publishes two contents."""
    return {vehicle: target.hashes["sha256"] for target in targets for vehicle in population.vehicles(target)}


def in_words(vehicles: frozenset[str], population: Population) -> str:
    """Return the number of vehicles in words, with the number of each brand and market."""
    markets = population.by_market(vehicles).most_common()
    listed = ", ".join(f"{brand} {market} {count:,}" for (brand, market), count in markets[:_LISTED])
    more = f", {len(markets) - _LISTED} more" if len(markets) > _LISTED else ""
    return f"{len(vehicles):,} vehicle{'' if len(vehicles) == 1 else 's'} ({listed}{more})"


def _counted(vehicles: frozenset[str], population: Population) -> dict[str, object]:
    markets = population.by_market(vehicles).most_common()
    return {
        "vehicles": len(vehicles),
        "by_market": [{"brand": brand, "market": market, "vehicles": count} for (brand, market), count in markets],
    }
