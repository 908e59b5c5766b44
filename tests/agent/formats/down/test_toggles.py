"""Test each rule of flagd's schema with a document that breaks the rule."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator, FlagNotFound, check_toggles, vehicle_context
from agent.formats.down.targeting import NODES
from agent.formats.down.toggles import FlagKind, parse_toggles

SAMPLE = Path(__file__).parents[4] / "config" / "toggles.json"
CAR = Attributes("0f8fad5b-d9cb-469f-a165-70867728950e", "Aria", "One", "DE", 2026)
FLAG: dict[str, Any] = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}


def document(targeting: Any = None, **more: Any) -> bytes:
    flag = FLAG | ({} if targeting is None else {"targeting": targeting}) | more.pop("flag", {})
    return json.dumps({"flags": {"f": flag}} | more).encode()


def checked(content: bytes, *cars: Attributes) -> Evaluator:
    return check_toggles(parse_toggles(content, "t.json"), "t.json", [vehicle_context(car) for car in cars])


def evaluate(targeting: Any, context: dict[str, Any] | None = None, **more: Any) -> str | None:
    toggles = parse_toggles(document(targeting, **more), "t.json")
    return Evaluator(toggles).evaluate("f", context or {}).variant


def test_the_sample_is_valid_for_every_vehicle() -> None:
    evaluator = checked(SAMPLE.read_bytes(), CAR)
    context = vehicle_context(CAR)
    assert evaluator.evaluate("voice-assistant", context).value == "on-device"
    assert evaluator.evaluate("voice-assistant", context | {"market": "US"}).reason == "DEFAULT"
    assert evaluator.evaluate("energy-page", context).variant in ("classic", "flow")
    with pytest.raises(FlagNotFound, match="disabled"):
        evaluator.evaluate("valet-mode-hint", context)


def test_a_fractional_roll_out_reaches_about_its_share_of_vehicles_and_is_stable() -> None:
    evaluator = checked(SAMPLE.read_bytes())
    cars = [vehicle_context(Attributes(f"vehicle-{index}", "Aria", "One", "DE", 2026)) for index in range(2000)]
    reached = [evaluator.evaluate("new-navigation", car).value for car in cars]
    assert 140 < sum(reached) < 260
    assert [evaluator.evaluate("new-navigation", car).value for car in cars] == reached
    assert not any(evaluator.evaluate("new-navigation", car | {"model_year": 2025}).value for car in cars[:200])


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ({"state": "ENABLED", "variant": {"on": True}}, "unknown property 'variant'; did you mean 'variants'?"),
        (FLAG | {"targetting": {}}, "flag 'f': unknown property 'targetting'; did you mean 'targeting'?"),
        ({"state": "ENABLED", "variants": {"on": 1}, "default_variant": "on"}, "did you mean 'defaultVariant'?"),
    ],
)
def test_a_misspelt_property_is_refused_with_the_right_name(flag: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Permanent, match=re.escape(complaint)):
        parse_toggles(json.dumps({"flags": {"f": flag}}).encode(), "t.json")


def test_other_properties_are_tolerated_as_the_schema_demands() -> None:
    parse_toggles(document(flag={"owner": "navigation team", "variantsNote": "on and off"}), "t.json")


def test_a_number_flag_with_one_float_is_a_float_flag() -> None:
    toggles = parse_toggles(document(flag={"variants": {"a": 1, "b": 0.5}, "defaultVariant": "a"}), "t.json")
    assert toggles.kinds == {"f": FlagKind.FLOAT}
    value = Evaluator(toggles).evaluate("f", {}).value
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("arithmetic", "result"),
    [
        ({"/": [{"var": "model_year"}, 4]}, 506.5),
        ({"/": [{"-": [100, 10, 5]}, 5]}, 17),
        ({"-": [50, 4, 3, 2]}, 41),
        ({"-": [{"var": "model_year"}, 2000]}, 26),
        ({"-": [7]}, -7),
        ({"-": 7}, -7),
        ({"*": [6]}, 6),
        ({"*": [2, 3, 4]}, 24),
        ({"+": [1, 2, 3]}, 6),
        ({"%": [17, 5]}, 2),
    ],
)
def test_every_operation_of_arithmetic_in_flagds_schema_is_computed(arithmetic: Any, result: float) -> None:
    assert evaluate({"if": [{"==": [arithmetic, result]}, "on", "off"]}, {"model_year": 2026}) == "on"


def test_a_division_by_zero_fails_its_own_request_only() -> None:
    evaluator = checked(document({"if": [{">": [{"/": [8, {"var": ["cylinders", 4]}]}, 1]}, "on", "off"]}), CAR)
    assert evaluator.evaluate("f", {"cylinders": 2}).variant == "on"
    with pytest.raises(Permanent, match="flag 'f': the targeting rule fails"):
        evaluator.evaluate("f", {"cylinders": 0})


def test_a_condition_alone_names_its_variant() -> None:
    variants = {"variants": {"true": 1, "false": 2}, "defaultVariant": "false"}
    assert evaluate({"if": [{"==": [1, 1]}]}, flag=variants) == "true"


def test_the_model_year_has_one_name_and_its_first_name_is_understood() -> None:
    context = vehicle_context(CAR)
    assert context["model_year"] == context["modelYear"] == 2026


def test_unknown_properties_are_tolerated() -> None:
    assert evaluate(None, flag={"owner": "hmi"}, comment="x") == "off"


def test_a_flag_without_default_leaves_it_to_the_app() -> None:
    assert evaluate({"if": [{"var": "x"}, "on", None]}, flag={"defaultVariant": None}) is None


def test_shared_rules_are_resolved_whatever_letters_they_hold() -> None:
    shared = {"eq": {"==": [{"var": "name"}, 'Zoë "\\d"']}}
    rule = {"if": [{"$ref": "eq"}, "on", "off"]}
    assert evaluate(rule, {"name": 'Zoë "\\d"'}, **{"$evaluators": shared}) == "on"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "would remove all flags"),
        (b'{"flags":{}}', "would remove all flags"),
        (b'{"flags":[]}', "would remove all flags"),
        (b'{"flags":{"f":{},"f":{}}}', "occurs twice"),
        (document(flag={"variants": {"a": float("nan")}}), "NaN"),
        (document().replace(b"true", b"1e999"), "1e999"),
        (document(flag={"state": "enabled"}), "ENABLED or DISABLED"),
        (document(flag={"variants": {}}), "at least one variant"),
        (document(flag={"variants": {"": True}}), "at least one variant"),
        (document(flag={"variants": {"off": 0, "on": True}}), "one type"),
        (document(flag={"variants": {"off": [1]}}), "a string, a number or an object"),
        (document(flag={"variants": {"off": 2**53}}), "2\\^53"),
        (document(flag={"defaultVariant": "maybe"}), "'maybe' is not one of the variants; name one of '"),
        (document(flag={"defaultVariant": True}), "True is not one of"),
        (document(flag={"metadata": {"a": []}}), "metadata 'a'"),
        (document(metadata={"a": None}), "metadata 'a'"),
        (document([]), "must be a rule"),
        (document({"frac": []}), "there is no operator 'frac'"),
        (document({"if": [True, "on", "off"], "==": [1, 1]}), "exactly one operator"),
        (document({"if": []}), "takes at least 1"),
        (document({"if": [True, "up", "off"]}), "yields 'up'"),
        (document({"if": [True, 1, "off"]}), "yields '1'"),
        (document({"==": [1, 1]}), "yields 'true'"),
        (document({"fractional": [["on", 50], ["up", 50]]}), "yields 'up'"),
        (document({"fractional": [["on", -1], ["off", 50]]}), "weight -1"),
        (document({"fractional": [["on", 0.5]]}), "weight 0.5"),
        (document({"fractional": [["on", 0]]}), "add up to 0"),
        (document({"fractional": [["on", 2**31]]}), "add up to 2147483648; the sum must be between 1 and 2147483647"),
        (document({"fractional": [{"var": "x"}]}), "pairs"),
        (document({"if": [{"var": "$flagd.time"}, "on"]}), "does not exist"),
        (document({"if": [{"starts_with": [{"var": "x"}, 1]}, "on"]}), "must be strings"),
        (document({"if": [{"sem_ver": [{"var": "x"}, "==", "1.0.0"]}, "on"]}), "sem_ver"),
        (document({"if": [{"$ref": "nobody"}, "on"]}), "nobody"),
        (document({"$ref": "a"}, **{"$evaluators": {"a": {"$ref": "a"}}}), "back to itself"),
    ],
)
def test_each_broken_rule_is_named(content: bytes, complaint: str) -> None:
    with pytest.raises(Permanent, match=complaint) as error:
        parse_toggles(content, "t.json")
    assert str(error.value).startswith("t.json:")


def test_the_flag_at_fault_is_named() -> None:
    with pytest.raises(Permanent, match=r"^t\.json: flag 'f': targeting: there is no operator"):
        parse_toggles(document({"no": []}), "t.json")


def test_references_cannot_multiply() -> None:
    evaluators: dict[str, Any] = {f"e{level}": {"and": [{"$ref": f"e{level + 1}"}] * 10} for level in range(10)}
    evaluators["e10"] = {"var": "x"}
    with pytest.raises(Permanent, match=str(NODES)) as error:
        parse_toggles(document({"if": [{"$ref": "e0"}, "on"]}, **{"$evaluators": evaluators}), "t.json")
    assert str(error.value).count("$ref") == 2  # the innermost reference, and the remedy


@pytest.mark.parametrize(
    "targeting", [{"if": [{"%": [1, {"var": "x"}]}, "on"]}, {"cat": ["u", "p"]}, {"var": ["x", "up"]}]
)
def test_what_only_evaluation_shows_fails_the_dry_run(targeting: Any) -> None:
    with pytest.raises(Permanent, match=r"^t\.json: flag 'f'"):
        checked(document(targeting), CAR)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["if", "var", "==", "fractional", "sem_ver", "in", "$ref", "%", "cat", "x"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_rule_is_refused_or_evaluates_to_a_variant(targeting: Any, shared: Any) -> None:
    content = json.dumps({"flags": {"f": FLAG | {"targeting": targeting}}, "$evaluators": {"x": shared}}).encode()
    try:
        evaluator = checked(content, CAR)
    except Permanent:
        return
    assert evaluator.evaluate("f", {}).variant in ("on", "off")


@given(st.binary(max_size=100))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(Permanent):
        parse_toggles(garbage, "t.json")
