"""Test when features on demand are on, when toggles are stale, and which terms are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator
from agent.formats.down.toggles import parse_toggles
from agent.formats.down.validity import _NAMES, Moment, Validity, resolved_at, states_at, validities_in

DAY_S = 86_400
START_S, END_S = 1_764_547_200, 1_764_547_200 + 30 * DAY_S  # 2025-12-01 and 2025-12-31
TERMS = {
    "feature.start": "2025-12-01T00:00:00Z",
    "feature.end": "2025-12-31T01:00:00+01:00",
    "feature.offlineGraceDays": 14,
    "feature.outside": "off",
}
RULE = {"if": [{"var": "premium"}, "on", "demo"]}
CAR = Attributes("0f8fad5b", "Aria", "One", "DE", 2026)


def flag(terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    variants = {"on": "on", "off": "off", "demo": "demo"}
    flag = {"state": "ENABLED", "variants": variants, "defaultVariant": "on", "metadata": terms, **more}
    return {key: value for key, value in flag.items() if value is not None}


def document(*flags: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"flags": {f"f{number}": flag for number, flag in enumerate(flags)}, **more}).encode()


def at(days: float, *, possible: float | None = None, signed: float = -1) -> Moment:
    """Return the moment `days` after the start, by a right clock unless `possible` differs."""
    certain_s = START_S + days * DAY_S
    possible_s = certain_s if possible is None else START_S + possible * DAY_S
    return Moment(certain_s, possible_s, START_S + signed * DAY_S)


def answer(flag: dict[str, Any], moment: Moment, context: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """Return what an app gets at `moment`: the variant, and the metadata that tell the state."""
    toggles = parse_toggles(document(flag), "t.json")
    validities = validities_in(toggles.resolved)
    resolved = resolved_at(toggles.resolved, validities, states_at(validities, moment))
    found = Evaluator(toggles.__class__(toggles.kinds, toggles.disabled, resolved)).evaluate("f0", context or {})
    return found.variant, {key: value for key, value in found.metadata.items() if key.endswith(".state")}


@pytest.mark.parametrize(
    ("moment", "variant", "state"),
    [
        (at(-0.001), "off", "before"),
        (at(0), "demo", "on"),
        (at(29.999), "demo", "on"),
        (at(30), "demo", "grace"),  # the last word from the fleet is older than the end
        (at(30, signed=30), "off", "ended"),  # the fleet has signed since, and has not prolonged the feature
        (at(43.999), "demo", "grace"),
        (at(44), "off", "ended"),
    ],
)
def test_a_feature_is_on_between_start_and_end_and_for_the_grace_time_offline(
    moment: Moment, variant: str, state: str
) -> None:
    assert answer(flag(TERMS, targeting=RULE), moment) == (variant, {"feature.state": state})


def test_a_clock_in_2099_switches_nothing_on_and_a_clock_in_1970_prolongs_nothing() -> None:
    feature = flag(TERMS, targeting=RULE)
    years = 73 * 365.0
    assert answer(feature, at(-1, possible=years))[0] == "off"  # not yet, whatever the wall clock shows
    assert answer(feature, at(10, possible=years))[0] == "off"  # perhaps over already
    only_start = flag({"feature.start": TERMS["feature.start"], "feature.outside": "off"})
    assert answer(only_start, at(-1, possible=years))[0] == "off"
    # A clock in 1970 shows as a certain time without the wall clock (FeatureClock), here after the end.
    assert answer(feature, at(44))[0] == "off"


def test_outside_of_its_time_the_default_applies_unless_another_variant_is_named() -> None:
    terms = {"feature.end": TERMS["feature.end"]}
    ended = at(31)
    assert answer(flag(terms, targeting=RULE), ended, {"premium": False})[0] == "on"
    assert answer(flag(terms | {"feature.outside": "off"}, targeting=RULE), ended)[0] == "off"
    assert answer(flag(terms, targeting=RULE, defaultVariant=None), ended)[0] is None  # the app's own code decides


def test_a_stale_toggle_gives_its_default_or_is_kept() -> None:
    stale = {"stale.afterDays": 30}
    fresh, old = at(29.9, signed=0), at(30.1, signed=0)
    for policy, variants in (({}, ["demo", "on"]), ({"stale.policy": "keep"}, ["demo", "demo"])):
        toggle = flag(stale | policy, targeting=RULE)
        assert [answer(toggle, moment) for moment in (fresh, old)] == [
            (variants[0], {"stale.state": "fresh"}),
            (variants[1], {"stale.state": "stale"}),
        ]


def test_a_document_without_terms_keeps_its_text() -> None:
    toggles = parse_toggles(document(flag({"owner": "hmi"}, targeting=RULE)), "t.json")
    assert validities_in(toggles.resolved) == {}
    assert resolved_at(toggles.resolved, {}, {}) is toggles.resolved


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"feature.start": "2025-12-01"}, "has no time zone"),
        ({"feature.start": "tomorrow"}, "not an ISO 8601 time"),
        ({"feature.end": 1_764_547_200}, "must be a time like"),
        (TERMS | {"feature.end": "2025-11-30T00:00:00Z"}, "must be after 'feature.start'"),
        (TERMS | {"feature.outside": "gone"}, "is not one of the variants; name one of 'on', 'off', 'demo'"),
        (TERMS | {"feature.offlineGraceDays": 0}, "must be a number of days"),
        (TERMS | {"feature.offlineGraceDays": True}, "must be a number of days"),
        (TERMS | {"feature.offlineGraceDays": 40_000}, "up to 36,500"),
        (TERMS | {"feature.gracedays": 3}, "is not known"),
        (TERMS | {"feature.ends": "2025-12-31T00:00:00Z"}, "did you mean 'feature.end'"),
        (TERMS | {"feature.state": "on"}, "is not known"),
        ({"feature.offlineGraceDays": 3}, "no effect without feature.end"),
        ({"feature.outside": "off"}, "no effect without feature.start or feature.end"),
        ({"stale.policy": "keep"}, "no effect without stale.afterDays"),
        ({"stale.afterDays": 3, "stale.policy": "off"}, "must be keep or default, not 'off'"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused_by_name(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(Permanent, match=message) as refused:
        parse_toggles(document(flag(terms, targeting=RULE)), "t.json")
    assert str(refused.value).startswith("t.json: flag 'f0': ")


def test_terms_that_would_change_nothing_are_refused() -> None:
    for terms in ({"feature.end": TERMS["feature.end"]}, TERMS | {"feature.outside": "on"}):
        with pytest.raises(Permanent, match="apps would get 'on' before the start and after the end as well"):
            parse_toggles(document(flag(terms)), "t.json")
    with pytest.raises(Permanent, match=r"gives its default anyway"):
        parse_toggles(document(flag({"stale.afterDays": 3})), "t.json")
    parse_toggles(document(flag({"stale.afterDays": 3, "stale.policy": "keep"})), "t.json")
    with pytest.raises(Permanent, match=r"t\.json: metadata 'stale\.afterDays' has no effect for all flags together"):
        parse_toggles(document(flag({}), metadata={"stale.afterDays": 3}), "t.json")


TIMES = st.floats(0, 100 * DAY_S)


@given(TIMES, TIMES, TIMES, TIMES, TIMES)
def test_time_that_passes_never_brings_a_feature_back(
    start: float, length: float, grace: float, now: float, later: float
) -> None:
    validity = Validity(start, start + length, grace)
    states = [validity.state_at(Moment(each, each, 0)).feature for each in sorted((now, later))]
    order = ["before", "on", "grace", "ended"]
    assert order.index(states[0]) <= order.index(states[1])


@given(TIMES, TIMES, TIMES, TIMES, TIMES)
def test_an_uncertain_time_never_switches_a_feature_on(
    start: float, length: float, certain: float, more: float, signed: float
) -> None:
    validity = Validity(start, start + length)
    unsure = validity.state_at(Moment(certain, certain + more, signed)).feature
    if unsure == "on":
        assert validity.state_at(Moment(certain, certain, signed)).feature == "on"
        assert validity.state_at(Moment(certain + more, certain + more, signed)).feature == "on"


EDGES = ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.sampled_from(["on", "off", "keep", "default", "2025-12-01T00:00:00Z", *EDGES]),
    st.text(max_size=10),
    st.lists(st.integers(), max_size=2),
)


@given(st.dictionaries(st.sampled_from(list(_NAMES)), VALUES), st.booleans())
def test_any_terms_are_refused_by_name_or_can_be_carried_out(terms: dict[str, Any], ruled: bool) -> None:
    try:
        toggles = parse_toggles(document(flag(terms, targeting=RULE if ruled else None)), "t.json")
    except Permanent as error:
        assert str(error).startswith("t.json: ")
        return
    seen = set()
    for days in (-(10**6), -1, 0, 31, 100, 10**6):
        validities = validities_in(toggles.resolved)
        resolved = resolved_at(toggles.resolved, validities, states_at(validities, at(days)))
        seen.add(Evaluator(toggles.__class__(toggles.kinds, toggles.disabled, resolved)).evaluate("f0", {}).variant)
    assert seen <= {"on", "off", "demo"}
