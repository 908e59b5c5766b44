"""Test who belongs to an audience, as the fleet writes it and as every vehicle evaluates it."""

import hashlib
import math
from dataclasses import asdict, replace
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, TargetFile, Targets

from agent.errors import Permanent
from agent.formats.down.audience import (
    EVERYONE,
    Attributes,
    Audience,
    audience_field,
    audience_text,
    matches,
    parse_audience,
    selects,
)

HASH = "ab" * 32
NAME = "campaigns/drive.json"
CAR = Attributes("0f8fad5b-d9cb-469f-a165-70867728950e", "Aria", "One", "DE", 2026, "4.2")
MANY = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(10_000)]


def belongs(audience: Audience, car: Attributes = CAR, name: str = NAME, sha256: str = HASH) -> bool:
    signed = matches(audience_field(audience, sha256, name), sha256, car) if audience else matches(None, sha256, car)
    assert selects(audience, car, name) is signed
    return signed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("brand=Aria", True),
        ("brand=aria", False),
        ("brand=Bora,brand=Aria", True),
        ("brand=Aria,market=US", False),
        ("model=One, market=DE ,model_year=2026,software=4.2", True),
        ("model_year=2025", False),
        ("software=4.2,software=4.3", True),
        ("software=4.3", False),
        (f"vehicle={CAR.vehicle}", True),
        (f"vehicle={MANY[0]}", False),
        (f"vehicle={MANY[0]},vehicle={CAR.vehicle},brand=Aria", True),
        ("brand=Bora;market=DE", True),
        ("brand=Bora,market=DE;brand=Aria,market=US", False),
        ("percent=100", True),
        ("brand=Bora,percent=100", False),
    ],
)
def test_a_vehicle_must_match_every_key_of_one_rule(text: str, expected: bool) -> None:
    assert belongs(parse_audience(text)) is expected


RULE = st.fixed_dictionaries(
    {},
    optional={
        "brand": st.lists(st.sampled_from(["Aria", "Bora"]), min_size=1, max_size=2, unique=True).map(tuple),
        "market": st.lists(st.sampled_from(["DE", "US"]), min_size=1, max_size=2, unique=True).map(tuple),
        "model_year": st.sampled_from([(2025,), (2026,), (2025, 2026)]),
        "vehicle": st.lists(st.sampled_from(MANY[:6]), min_size=1, max_size=3, unique=True).map(tuple),
        "percent": st.sampled_from([(0.01,), (10.0,), (25.0,), (50.0,), (100.0,)]),
    },
).filter(bool)


def by_hand(rule: dict[str, Any], car: Attributes, name: str) -> bool:
    """Decide independently of the code under test, from the text of its specification."""
    own = asdict(car)
    salt = hashlib.sha256(name.encode()).hexdigest()[:32]
    drawn = int(hashlib.sha256(f"{salt}\n{car.vehicle}".encode()).hexdigest()[:16], 16) / 2**64
    return all(
        math.floor(drawn * 1e6) < values[0] * 1e4 if key == "percent" else own[key] in values
        for key, values in rule.items()
    )


@given(rules=st.lists(RULE, max_size=3), car=st.sampled_from([
    Attributes(vehicle, brand, "One", market, year)
    for vehicle, brand, market, year in product(MANY[:6], ("Aria", "Bora"), ("DE", "US"), (2025, 2026))
]))  # fmt: skip
def test_the_signed_rules_mean_what_the_specification_says(rules: list[dict[str, Any]], car: Attributes) -> None:
    expected = not rules or any(by_hand(rule, car, NAME) for rule in rules)
    assert belongs(tuple(rules), car) is expected
    assert parse_audience("" if not rules else audience_text(rules)) == parse_audience(
        "" if not rules else audience_text(parse_audience(audience_text(rules)))
    )


def sharing(percent: float, name: str = NAME, sha256: str = HASH) -> set[str]:
    audience = ({"percent": (percent,)},)
    return {vehicle for vehicle in MANY if belongs(audience, replace(CAR, vehicle=vehicle), name, sha256)}


def test_a_smaller_share_is_contained_in_a_larger_one_and_every_share_has_its_size() -> None:
    sizes = (0.5, 1.0, 10.0, 25.0, 50.0, 99.5)
    shares = [sharing(percent) for percent in sizes]
    assert all(small < large for small, large in pairwise(shares))
    for percent, share in zip(sizes, shares, strict=True):
        expected = len(MANY) * percent / 100
        # Five standard deviations of a binomial distribution.
        assert abs(len(share) - expected) < 5 * math.sqrt(expected * (1 - percent / 100))


def test_a_share_stays_when_the_document_changes_and_differs_between_documents() -> None:
    assert sharing(10.0) == sharing(10.0, sha256="cd" * 32)
    other = sharing(10.0, name="campaigns/brakes.json")
    assert len(sharing(10.0) & other) < 200  # 100 are expected of 1,000


def test_a_share_is_pinned_so_that_no_later_version_moves_vehicles() -> None:
    vehicles = [vehicle for vehicle in MANY[:60] if vehicle in sharing(10.0)]
    assert [int(vehicle[:8], 16) for vehicle in vehicles] == [5, 6, 11, 16, 23, 30, 37, 54]


def test_the_field_of_one_rule_has_the_form_that_older_vehicles_read() -> None:
    assert audience_field(parse_audience("brand=Aria,brand=Bora,model_year=2026"), HASH, NAME) == {
        "audience": {"brand": ["Aria", "Bora"], "model_year": [2026]}
    }


def test_a_release_with_the_first_form_of_the_field_stays_valid() -> None:
    digest = hashlib.sha256(f"{HASH}/{CAR.vehicle}".encode()).hexdigest()[:32]
    field = {"audience": {"brand": ["Aria"], "model_year": [2026], "vehicle": [digest]}}
    assert matches(field, HASH, CAR)
    assert not matches(field, HASH, replace(CAR, vehicle=MANY[0]))
    assert matches({"audience": {}}, HASH, CAR)


@pytest.mark.parametrize(
    "custom",
    [
        {"audience": {"colour": ["red"]}},
        {"audience": {"brand": "Aria"}},
        {"audience": {"brand": [["Aria"]]}},
        {"audience": {"brand": []}},
        {"audience": []},
        {"audience": [["brand"]]},
        {"audience": [{"brand": ["Aria"], "colour": ["red"]}]},
        {"audience": {"percent": 100}},
        {"audience": {"percent": {"salt": "s", "ppm": True}}},
        {"audience": {"percent": {"salt": "s", "ppm": "1000000"}}},
        {"audience": {"percent": {"salt": 1, "ppm": 1_000_000}}},
        {"audience": {"percent": {"salt": "s", "ppm": 1_000_000, "until": 5}}},
        {"audience": {"percent": {"salt": "s", "ppm": -1}}},
        {"audience": None},
        "everyone",
        [],
    ],
)
def test_an_audience_that_cannot_be_read_matches_no_vehicle(custom: object) -> None:
    assert not matches(custom, HASH, CAR)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["audience", "brand", "vehicle", "percent", "salt", "ppm"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(custom=JSON)
def test_no_signed_field_makes_the_verifier_fail(custom: object) -> None:
    assert matches(custom, HASH, CAR) in (True, False)


def test_a_share_survives_the_canonical_form_that_is_signed() -> None:
    """TUF signs canonical JSON, which has no numbers with a fraction."""
    target = TargetFile(
        1, {"sha256": HASH}, "t", {"custom": audience_field(parse_audience("percent=12.5"), HASH, NAME)}
    )
    signed = Metadata(Targets(targets={"t": target}))
    assert signed.signed_bytes
    read = Metadata[Targets].from_bytes(signed.to_bytes()).signed.targets["t"]
    assert {v for v in MANY[:100] if matches(read.custom, HASH, replace(CAR, vehicle=v))} == sharing(12.5) & {
        *MANY[:100]
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour=red", "brand, model, market, model_year, software, vehicle, percent"),
        ("brnd=Aria", "did you mean 'brand'"),
        ("model-year=2026", "did you mean 'model_year'"),
        ("brand", "KEY=VALUE"),
        ("brand=", "KEY=VALUE"),
        ("brand=" + "A" * 101, "at most 100 characters"),
        ("brand=A\x1bB", "KEY=VALUE"),
        ("brand=Aria;", "a rule beside a semicolon is empty"),
        (" ; ", "a rule beside a semicolon is empty"),
        ("model_year=²", "not a number"),
        ("percent=0", "above 0 and at most 100"),
        ("percent=101", "above 0 and at most 100"),
        ("percent=nan", "above 0 and at most 100"),
        ("percent=1e1", "above 0 and at most 100"),
        ("percent=0.00001", "at most 4 decimal places"),
        ("percent=10,percent=25", "given twice"),
        ("percent=10,percent=10", "given twice"),
        ("vehicle=11111111-2222-4333-8444-55555555555", "not a pseudonym"),
    ],
)
def test_a_wrong_term_is_named(text: str, complaint: str) -> None:
    with pytest.raises(Permanent, match=complaint):
        parse_audience(text)


def test_rules_are_told_in_the_form_in_which_they_are_given() -> None:
    text = "brand=Aria,model_year=2026,percent=12.5; market=EU"
    assert audience_text(parse_audience(text)) == text
    assert audience_text(EVERYONE) == "every vehicle"
