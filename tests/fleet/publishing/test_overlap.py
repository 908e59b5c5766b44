"""Two audiences may meet, or one contains the other, exactly if some choice of vehicles shows it."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.formats.down.audience import Attributes, audience_field, matches
from fleet.publishing.overlap import contains, may_meet

VALUES = {"brand": ("A", "B"), "market": ("DE", "FR"), "vehicle": ("v1", "v2")}
EVERYBODY = [Attributes(vehicle, brand, "One", market, 2026) for brand, market, vehicle in product(*VALUES.values())]
AUDIENCES = st.fixed_dictionaries(
    {}, optional={key: st.lists(st.sampled_from(values), min_size=1, unique=True) for key, values in VALUES.items()}
)


def field(audience: dict[str, list[str]]) -> dict[str, object]:
    return audience_field({key: tuple(values) for key, values in audience.items()}, "00")


@given(AUDIENCES, AUDIENCES)
def test_the_answers_are_those_of_all_possible_vehicles(one: dict[str, list[str]], other: dict[str, list[str]]) -> None:
    a, b = field(one), field(other)
    ours, theirs = ([matches(each, "00", vehicle) for vehicle in EVERYBODY] for each in (a, b))
    assert may_meet(a, b) == any(x and y for x, y in zip(ours, theirs, strict=True))
    assert not contains(a, b) or all(x for x, y in zip(ours, theirs, strict=True) if y)
    # A list of all values that the test knows is not everybody, because a vehicle may have yet another value.
    complete = {key: values for key, values in one.items() if len(values) < len(VALUES[key])}
    if complete == one:
        assert contains(a, b) == all(x for x, y in zip(ours, theirs, strict=True) if y)


@pytest.mark.parametrize(
    ("one", "other", "meet", "inside"),
    [
        (None, {}, True, True),
        (None, {"audience": {"market": ["DE"]}}, True, True),
        ({"audience": {"market": ["DE"]}}, None, True, False),
        ({"audience": [{"market": ["DE"]}, {"brand": ["A"]}]}, {"audience": {"market": ["DE"]}}, True, True),
        ({"audience": [{"market": ["DE"]}, {"market": ["FR"]}]}, {"audience": {"market": ["US"]}}, False, False),
    ],
)
def test_a_target_without_an_audience_and_audiences_of_several_rules(
    one: Any, other: Any, meet: bool, inside: bool
) -> None:
    assert (may_meet(one, other), may_meet(other, one), contains(one, other)) == (meet, meet, inside)


def test_a_share_of_the_vehicles_contains_each_smaller_share_of_the_same_document() -> None:
    def share(ppm: int, salt: str = "a") -> dict[str, Any]:
        return {"audience": {"percent": {"salt": salt, "ppm": ppm}}}

    assert contains(share(250_000), share(100_000))
    assert not contains(share(100_000), share(250_000))
    assert not contains(share(250_000, "b"), share(100_000))
    assert may_meet(share(100_000), share(100_000, "b"))
    assert contains(None, share(100_000))
