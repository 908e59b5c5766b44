"""Reads which vehicles are enrolled, and finds which of them a published document is for.

A fleet has far fewer combinations of attributes (brand, model, market, model year, software) than vehicles.  Vehicles
with the same combination are kept together, so an audience is compared with combinations.  Only a rule that names
vehicles or takes a share of them is compared with each vehicle.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final

from tqdm import tqdm
from tuf.api.metadata import TargetFile

from agent.errors import Permanent, did_you_mean
from agent.formats.down.audience import LISTED, Attributes, Audience, excepted_rules, signed_rules
from fleet.state.registry import Registry

_DELAY_S: Final = 1.0
"""A terminal shows the progress of reading the records if it takes longer than this."""


class Population:
    """Holds all vehicles that are enrolled and not revoked.

    `groups` has the pseudonyms of the vehicles by their combination of attributes, which is an Attributes without a
    pseudonym.  `unreadable` holds an error message for each record that cannot be read.
    """

    def __init__(self, groups: Mapping[Attributes, tuple[str, ...]], unreadable: tuple[str, ...] = ()) -> None:
        self.groups = groups
        self.unreadable = unreadable

    @classmethod
    def of(cls, registry: Registry) -> "Population":
        """Read the records of all vehicles."""
        groups: dict[Attributes, list[str]] = {}
        unreadable: list[str] = []
        # A combination is looked up as a tuple, because hashing 100,000 values of Attributes takes longer.
        combinations: dict[tuple[object, ...], list[str]] = {}
        # `disable=None` makes tqdm draw on a terminal only.
        for found in tqdm(registry.enrolled(), desc="vehicles", disable=None, leave=False, delay=_DELAY_S):
            if isinstance(found, Permanent):
                unreadable.append(str(found))
                continue
            key = (found.brand, found.model, found.market, found.model_year, found.software)
            vehicles = combinations.get(key)
            if vehicles is None:
                vehicles = combinations[key] = groups[replace(found, vehicle="")] = []
            vehicles.append(found.vehicle)
        return cls({combination: tuple(vehicles) for combination, vehicles in groups.items()}, tuple(unreadable))

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    def reached(self, target: TargetFile) -> dict[Attributes, tuple[str, ...]]:
        """Return the vehicles that the document of `target` is for, by their combination of attributes."""
        sha256 = target.hashes["sha256"]
        rules = signed_rules(target.custom, sha256)
        others = excepted_rules(target.custom, sha256)
        found = {}
        for combination, vehicles in self.groups.items():
            possible = [rule for rule in rules if rule.allows(combination)]
            excepted = [rule for rule in others if rule.allows(combination)]
            if any(rule.picks_all for rule in possible) and not excepted:
                found[combination] = vehicles
            elif possible:
                picked = tuple(
                    vehicle
                    for vehicle in vehicles
                    if any(rule.picks(vehicle) for rule in possible)
                    and not any(rule.picks(vehicle) for rule in excepted)
                )
                if picked:
                    found[combination] = picked
        return found

    def vehicles(self, *targets: TargetFile) -> set[str]:
        """Return the pseudonyms of the vehicles that the documents of `targets` are for."""
        return {vehicle for target in targets for vehicles in self.reached(target).values() for vehicle in vehicles}

    def by_market(self, vehicles: Iterable[str]) -> Counter[tuple[str, str]]:
        """Return the number of `vehicles` of each brand and market."""
        return Counter(self._markets[vehicle] for vehicle in vehicles)

    def misspelt(self, audience: Audience) -> list[str]:
        """Return a warning for each value in `audience` that no enrolled vehicle has.

        The value may belong to vehicles that will be enrolled later, so it need not be a mistake.
        """
        warnings = []
        for key in (*LISTED, "vehicle"):
            known = self._markets if key == "vehicle" else {str(getattr(each, key)) for each in self.groups} - {""}
            for value in dict.fromkeys(str(value) for rule in audience for value in rule.get(key, ())):
                if value not in known:
                    near = did_you_mean(value, known) if key != "vehicle" else ""
                    # A long list would hide the other warnings.
                    listed = f"the enrolled ones are {', '.join(sorted(known)[:20])}" if known else ""
                    remedy = near or (listed if key != "vehicle" else "") or "check --audience"
                    warnings.append(f"No enrolled vehicle has {key}={value}; {remedy}")
        return [warning if warning.endswith("?") else f"{warning}." for warning in warnings]

    @cached_property
    def models(self) -> dict[str, str]:
        """The brand and model of each vehicle, as one text."""
        return {vehicle: _model(combination) for combination, vehicles in self.groups.items() for vehicle in vehicles}

    @cached_property
    def _markets(self) -> dict[str, tuple[str, str]]:
        """The brand and the market of each vehicle."""
        return {
            vehicle: (combination.brand, combination.market)
            for combination, vehicles in self.groups.items()
            for vehicle in vehicles
        }


def _model(combination: Attributes) -> str:
    # `fleet enrol` writes "unknown" for what it is not given.
    unknown = [name for name in ("brand", "model") if getattr(combination, name) == "unknown"]
    known = [value for value in (combination.brand, combination.model) if value != "unknown"]
    return " ".join(known or ["vehicle"]) + (f" of unknown {' and '.join(unknown)}" if unknown else "")
