"""Two audiences may meet exactly if some vehicle belongs to both."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.formats.down.audience import EVERYONE, Attributes, audience_field, matches
from fleet.publishing.overlap import may_meet

VALUES = {"brand": ("A", "B"), "market": ("DE", "FR"), "vehicle": ("v1", "v2")}
EVERYBODY = [Attributes(vehicle, brand, "One", market, 2026) for brand, market, vehicle in product(*VALUES.values())]
AUDIENCES = st.fixed_dictionaries(
    {}, optional={key: st.lists(st.sampled_from(values), min_size=1, unique=True) for key, values in VALUES.items()}
)


def field(audience: dict[str, list[str]]) -> dict[str, object]:
    rule = {key: tuple(values) for key, values in audience.items()}
    return audience_field([rule] if rule else EVERYONE, "00", "toggles.json")


@given(AUDIENCES, AUDIENCES)
def test_the_answers_are_those_of_all_possible_vehicles(one: dict[str, list[str]], other: dict[str, list[str]]) -> None:
    a, b = field(one), field(other)
    ours, theirs = ([matches(each, "00", vehicle) for vehicle in EVERYBODY] for each in (a, b))
    assert may_meet(a, b) == any(x and y for x, y in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (None, {}, True),
        (None, {"audience": {"market": ["DE"]}}, True),
        ({"audience": {"market": ["DE"]}}, None, True),
        ({"audience": [{"market": ["DE"]}, {"brand": ["A"]}]}, {"audience": {"market": ["DE"]}}, True),
        ({"audience": [{"market": ["DE"]}, {"market": ["FR"]}]}, {"audience": {"market": ["US"]}}, False),
    ],
)
def test_a_target_without_an_audience_and_audiences_of_several_rules(one: Any, other: Any, meet: bool) -> None:
    assert (may_meet(one, other), may_meet(other, one)) == (meet, meet)


def test_shares_of_two_documents_may_meet() -> None:
    def share(salt: str) -> dict[str, Any]:
        return {"audience": {"percent": {"salt": salt, "ppm": 100_000}}}

    assert may_meet(share("a"), share("b"))
