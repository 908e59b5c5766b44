"""Test that roll-outs by share reach as many vehicles as they say, and the same ones each time."""

import json
import random
import uuid
from math import sqrt
from typing import Any

import pytest

from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator, for_vehicle, vehicle_context
from agent.formats.down.toggles import Toggles, parse_toggles

VEHICLES = 10_000
_RANDOM = random.Random(12)
NAMES = [str(uuid.UUID(int=_RANDOM.getrandbits(128), version=4)) for _ in range(VEHICLES)]
"""Pseudonyms of vehicles, as `fleet enrol` makes them."""


def rule(percent: int, by: str) -> dict[str, Any]:
    shares = [["on", percent], ["off", 100 - percent]]
    return {
        "fractional": shares if by == "targetingKey" else [{"cat": [{"var": "$flagd.flagKey"}, {"var": by}]}, *shares]
    }


def published(by: str, **percents: int) -> Toggles:
    """Return a published definition with a roll-out by share for each flag in `percents`."""
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
    flags = {key: flag | {"targeting": rule(percent, by)} for key, percent in percents.items()}
    return parse_toggles(json.dumps({"flags": flags}).encode(), "t.json")


def has(toggles: Toggles, name: str) -> dict[str, bool]:
    """Return for each flag whether the vehicle `name` has the feature."""
    vehicle = Attributes(name, "Aria", "One", "DE", 2026)
    evaluator, context = Evaluator(for_vehicle(toggles, vehicle)), vehicle_context(vehicle)
    return {key: evaluator.evaluate(key, context).value for key in evaluator.keys}


@pytest.mark.parametrize("by", ["targetingKey", "vehicle"])
def test_a_tenth_and_a_half_of_10_000_vehicles_get_the_feature(by: str) -> None:
    toggles = published(by, tenth=10, half=50)
    found = [has(toggles, name) for name in NAMES]
    for key, share in (("tenth", 0.1), ("half", 0.5)):
        hit = sum(each[key] for each in found)
        # Four standard deviations of the binomial distribution: a right hash fails once in 16,000 choices of names.
        assert abs(hit - VEHICLES * share) < 4 * sqrt(VEHICLES * share * (1 - share)), f"{hit} of {VEHICLES}"


def test_a_vehicle_keeps_its_answer_and_a_growing_roll_out_takes_no_vehicle_out() -> None:
    steps = [published("targetingKey", feature=percent) for percent in (1, 10, 25, 50, 100)]
    for name in NAMES[:300]:
        first = [has(toggles, name)["feature"] for toggles in steps]
        assert [has(toggles, name)["feature"] for toggles in steps] == first
        assert first == sorted(first), f"{name} leaves the roll-out when it grows"
        assert first[-1]
