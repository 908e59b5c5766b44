"""Evaluates toggles for the vehicles that they are published for, before they are signed.

A rule is a program, and some mistakes show only for some vehicles: `{"cat": ["map-", {"var": "market"}]}` yields a
variant that exists for one market and not for another.  A vehicle refuses a release with such a rule.  The fleet
therefore evaluates every flag for every combination of attributes among the enrolled vehicles of the audience, with
the vehicle's own code.

A flag is evaluated only for combinations of those attributes that its rule reads, because brand, model, market, year
and software have thousands of combinations, and a document may have 2,000 flags.

Limit: a rule that reads the pseudonym, as `fractional` does, is evaluated for the vehicles that the document names and
for SAMPLE others of each combination.  A vehicle that is not among them checks the release itself.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from tqdm import tqdm

from agent.errors import Permanent
from agent.formats.down.audience import LISTED, Attributes
from agent.formats.down.documents import Document
from agent.formats.down.evaluation import TARGETING_KEY, check_toggles, for_vehicle, vehicle_context
from agent.formats.down.toggles import Toggles

SAMPLE: Final = 20
"""The number of vehicles of each combination for which a rule that reads the pseudonym is evaluated."""
_MANY: Final = 200
"""From this many evaluations of a part of a document on, a terminal shows the progress."""
_ATTRIBUTE: Final[Mapping[str, str]] = {
    **{key: key for key in (*LISTED, "vehicle")},
    "modelYear": "model_year",
    TARGETING_KEY: "vehicle",
}
"""The attribute of a vehicle that each name in a rule reads."""
_PSEUDONYM: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVERY: Final = frozenset(_ATTRIBUTE.values())


def check_answers(document: Document, reached: Mapping[Attributes, Sequence[str]]) -> None:
    """Evaluate every flag of a toggles document for the vehicles that get it, which `reached` has by combination.

    Raises: Permanent naming the document, the flag and the vehicles.
    """
    named = frozenset(_PSEUDONYM.findall(document.content.decode()))
    for part, read in _parts(document.value):
        cases = list(_cases(read, reached, named))
        for vehicle in tqdm(cases, desc=document.source, disable=None if len(cases) >= _MANY else True, leave=False):
            try:
                check_toggles(for_vehicle(part, vehicle), document.source, (vehicle_context(vehicle),))
            except Permanent as error:
                raise Permanent(f"{str(error).rstrip('.')}. {_for_whom(vehicle, read, reached)}") from error


def attributes_read(rule: Any) -> frozenset[str]:
    """Return the names of the vehicle attributes that `rule` may read.  Each `$ref` in the rule must be resolved."""
    if isinstance(rule, list):
        return frozenset().union(*(attributes_read(item) for item in rule))
    if not isinstance(rule, dict):
        return frozenset()
    ((operator, arguments),) = rule.items()
    # A computed name, and the empty name of the whole context, may mean any attribute.
    if operator in ("missing", "missing_some") or (
        operator == "var" and not (arguments[0] and isinstance(arguments[0], str))
    ):
        return _EVERY
    read = set(attributes_read(arguments))
    if operator == "var":
        read |= {_ATTRIBUTE[name] for name in [arguments[0].split(".")[0]] if name in _ATTRIBUTE}
    elif operator == "fractional":
        read.add("vehicle")
    return frozenset(read)


def _parts(toggles: Toggles) -> Iterator[tuple[Toggles, frozenset[str]]]:
    """Yield the flags of a document in parts whose rules read the same attributes, each with these attributes."""
    definition = json.loads(toggles.resolved)
    by_read: dict[frozenset[str], dict[str, Any]] = {}
    for key, flag in definition["flags"].items():
        by_read.setdefault(attributes_read(flag.get("targeting")), {})[key] = flag
    for read, flags in by_read.items():
        kinds = {key: toggles.kinds[key] for key in flags}
        yield (
            msgspec.structs.replace(
                toggles,
                kinds=kinds,
                disabled=toggles.disabled & kinds.keys(),
                resolved=json.dumps({**definition, "flags": flags}),
            ),
            read,
        )


def _cases(
    read: frozenset[str], reached: Mapping[Attributes, Sequence[str]], named: frozenset[str]
) -> Iterator[Attributes]:
    """Yield a vehicle of every combination of the attributes that are `read`.

    If the pseudonym is read, yield several vehicles of each combination, and every vehicle that is `named`.
    """
    seen: dict[tuple[object, ...], int] = {}
    for combination, vehicles in reached.items():
        projected = _projected(combination, read)
        if "vehicle" not in read:
            if projected not in seen:
                yield replace(combination, vehicle=vehicles[0])
            seen[projected] = 1
            continue
        room = SAMPLE - seen.get(projected, 0)
        further = named.intersection(vehicles[max(room, 0) :])
        for vehicle in (*vehicles[: max(room, 0)], *sorted(further)):
            yield replace(combination, vehicle=vehicle)
        seen[projected] = seen.get(projected, 0) + len(vehicles)


def _projected(combination: Attributes, read: frozenset[str]) -> tuple[object, ...]:
    return tuple(getattr(combination, key) for key in LISTED if key in read)


def _for_whom(vehicle: Attributes, read: frozenset[str], reached: Mapping[Attributes, Sequence[str]]) -> str:
    """Say for which enrolled vehicles a flag failed."""
    same = _projected(vehicle, read)
    count = sum(len(vehicles) for each, vehicles in reached.items() if _projected(each, read) == same)
    listed = [f"{key}={getattr(vehicle, key)}" for key in LISTED if key in read]
    if "vehicle" in read:
        return f"This is so for vehicle={vehicle.vehicle}; correct the rule, or leave this vehicle out with --audience"
    whom = f"with {', '.join(listed)}" if listed else "that get this document"
    return f"This is so for the {count:,} enrolled vehicles {whom}; correct the rule, or leave them out with --audience"
