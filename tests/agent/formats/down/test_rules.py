"""Test that the work of a rule is bounded, and that rules mean the same as for the evaluator of flagd."""

import json
import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS, jsonLogic

from agent.errors import Permanent
from agent.formats.down.evaluation import vehicle_context
from agent.formats.down.rule_cost import DOCUMENT_OPERATIONS, OPERATIONS, Meter, worst_case
from agent.formats.down.rules import evaluate
from agent.formats.down.toggles import parse_toggles
from agent.serve.http import Request
from agent.serve.toggles import EVALUATE, ToggleService
from tests.agent.formats.down.test_toggles import CAR, FLAG, checked, document

PATIENCE_S = 2.0
"""No request may take longer; a rule at its limit takes some 50 ms, and all flags of a request twice that."""
LATER = {">": [{"var": "$flagd.timestamp"}, 4_000_000_000]}  # in the year 2096


def nested(operator: str, items: Any, levels: int, body: Any = 1) -> Any:
    for _ in range(levels):
        body = {operator: [items, body]}
    return body


THIRTY = list(range(30))
ACCUMULATOR = {"var": ["accumulator"]}
HEAVY = {
    "map": nested("map", THIRTY, 6),
    "filter": nested("filter", THIRTY, 6),
    "all": nested("all", THIRTY, 6),
    "some": nested("some", THIRTY, 6, {"==": [{"var": ""}, "never"]}),
    "none": nested("none", THIRTY, 6, {"==": [{"var": ""}, "never"]}),
    "map-of-merge": nested("map", {"merge": [THIRTY, THIRTY]}, 4),
}
GROWING = {
    "text": {"reduce": [THIRTY, {"cat": [ACCUMULATOR, ACCUMULATOR]}, "xxxxxxxxxx"]},
    "list": {"reduce": [THIRTY, {"merge": [ACCUMULATOR, ACCUMULATOR]}, [1, 2, 3]]},
    "lists-in-lists": {"cat": [{"reduce": [THIRTY, [ACCUMULATOR, ACCUMULATOR], 1]}]},
    "deep-list": {"cat": [{"reduce": [list(range(500)), [ACCUMULATOR], 1]}]},
    "number": {"reduce": [THIRTY, {"*": [ACCUMULATOR, ACCUMULATOR]}, 2**52]},
    "loop-over-a-grown-list": {
        "map": [{"reduce": [THIRTY, {"merge": [ACCUMULATOR, ACCUMULATOR]}, [1, 2, 3]]}, {"var": ""}]
    },
}


def condition(rule: Any) -> Any:
    return {"if": [{"==": [{"cat": [rule]}, "?"]}, "on", "off"]}


@pytest.mark.parametrize("rule", HEAVY.values(), ids=HEAVY)
def test_a_rule_over_time_that_would_hang_later_is_refused_before_its_trial(rule: Any) -> None:
    started_s = time.monotonic()
    with pytest.raises(Permanent, match=r"^t\.json: flag 'f': the targeting rule can take [\d,]+ operations"):
        checked(document({"if": [LATER, condition(rule), "off"]}), CAR)
    assert time.monotonic() - started_s < PATIENCE_S


@pytest.mark.parametrize("rule", [*HEAVY.values(), *GROWING.values()], ids=[*HEAVY, *GROWING])
def test_a_rule_that_goes_on_too_long_is_stopped_while_it_runs(rule: Any) -> None:
    started_s = time.monotonic()
    with pytest.raises(Permanent, match=r"more than [\d,]+ operations|nest deeper"):
        evaluate({"cat": [rule]}, {}, OPERATORS, Meter())
    assert time.monotonic() - started_s < PATIENCE_S


def ask(service: ToggleService, path: str, context: Any) -> Any:
    request = Request("POST", path, {}, json.dumps({"context": context}).encode())
    answer = service.evaluate_all(request) if path == EVALUATE else service.evaluate_one(request)
    return json.loads(answer.body)


def test_a_long_list_from_an_app_fails_its_own_request_only() -> None:
    products = nested("some", {"var": "list"}, 1, {"==": [{"var": ""}, "never"]})
    pairs = {"some": [{"map": [{"var": "list"}, nested("some", THIRTY, 1, {"==": [{"var": ""}, 99]})]}, {"var": ""}]}
    service = ToggleService(CAR)
    service.replace(checked(document({"if": [{"or": [products, pairs]}, "on", "off"]}), CAR))
    path = f"{EVALUATE}/f"
    assert ask(service, path, {"list": list(range(50))})["variant"] == "off"
    started_s = time.monotonic()
    long = ask(service, path, {"list": list(range(10_000))})
    assert time.monotonic() - started_s < PATIENCE_S
    assert (long["errorCode"], "operations" in long["errorDetails"]) == ("GENERAL", True)
    assert ask(service, path, {"list": list(range(50))})["variant"] == "off"


def test_all_flags_of_a_request_share_one_limit() -> None:
    rule = {"if": [nested("some", {"var": "list"}, 1, {"==": [{"var": ""}, "never"]}), "on", "off"]}
    flags = {f"f{number}": FLAG | {"targeting": rule} for number in range(200)}
    service = ToggleService(CAR)
    service.replace(checked(json.dumps({"flags": flags}).encode(), CAR))
    assert all(flag["variant"] == "off" for flag in ask(service, EVALUATE, {"list": [1, 2, 3]})["flags"])
    started_s = time.monotonic()
    answered = ask(service, EVALUATE, {"list": list(range(5_000))})["flags"]
    assert time.monotonic() - started_s < PATIENCE_S
    assert 0 < sum("variant" in flag for flag in answered) < 100
    assert all("all flags" in flag["errorDetails"] for flag in answered[100:])


def test_the_rules_of_a_document_together_are_bounded_too() -> None:
    heavy = {"if": [{"some": [list(range(100)), nested("some", list(range(100)), 1, {"var": ""})]}, "on", "off"]}
    assert worst_case(heavy) < OPERATIONS
    flags = {
        f"f{number}": FLAG | {"targeting": heavy} for number in range(DOCUMENT_OPERATIONS // worst_case(heavy) + 1)
    }
    with pytest.raises(Permanent, match=r"^t\.json: the rules of all flags can take"):
        parse_toggles(json.dumps({"flags": flags}).encode(), "t.json")


def test_loops_over_the_lists_of_apps_are_allowed() -> None:
    seats = {"some": [{"var": "seats"}, {"and": [{"var": "occupied"}, {"in": [{"var": "row"}, [1, 2, 3]]}]}]}
    evaluator = checked(document({"if": [seats, "on", "off"]}), CAR)
    context = vehicle_context(CAR) | {"seats": [{"row": 4, "occupied": True}, {"row": 2, "occupied": True}]}
    assert evaluator.evaluate("f", context).variant == "on"


@pytest.mark.parametrize("rule", [{"map": [THIRTY, 1]}, {"var": "list"}, {"merge": [["on"]]}])
def test_a_list_is_no_name_of_a_variant(rule: Any) -> None:
    evaluator = checked(document({"if": [{"var": "list"}, rule, "off"]}), CAR)
    with pytest.raises(Permanent, match=r"flag 'f'.*must yield the name of a variant"):
        evaluator.evaluate("f", {"list": ["on"]})


# ---------------------------------------------------------------- compared with the evaluator of flagd

VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 0.5, "", "a", "b", "1", "x.y"])
PATHS = st.sampled_from(["", "a", "b", "list", "list.0", "accumulator", "current", "none"])


def _operators(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=3) | st.just({"var": ["list"]}) | inner
    some = st.sampled_from(["and", "or", "cat", "merge", "+", "min", "max", "missing"])
    two = st.sampled_from(["==", "===", "!=", "!==", "<", ">=", "-", "%", "*", "in", "starts_with"])
    loops = st.sampled_from(["map", "filter", "all", "some", "none", "reduce"])
    return (
        st.builds(lambda o, a: {o: a}, some, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda o, a, b: {o: [a, b]}, two, inner, inner)
        | st.builds(lambda a: {"if": a}, st.lists(inner, min_size=2, max_size=5))
        | st.builds(lambda o, a, b: {o: [a, b]}, loops, lists, inner)
        | st.builds(lambda a, b, c: {"reduce": [a, b, c]}, lists, inner, VALUES)
        | st.builds(lambda o, a: {o: [a]}, st.sampled_from(["!", "!!"]), inner)
    )


RULES = st.recursive(VALUES | PATHS.map(lambda path: {"var": [path]}), _operators, max_leaves=15)
DATA = st.dictionaries(st.sampled_from("ab"), VALUES) | st.builds(lambda a: {"list": a}, st.lists(VALUES, max_size=4))


def _outcome(work: Any) -> str:
    try:
        return repr(work())
    except Permanent as error:
        return str(error)
    except Exception as error:  # noqa: BLE001
        return type(error).__name__


@settings(max_examples=1_000, deadline=None)
@given(RULES, DATA)
def test_every_rule_has_the_result_that_it_has_in_flagd(rule: Any, data: Any) -> None:
    ours = _outcome(lambda: evaluate(rule, data, OPERATORS, Meter()))
    # With `{"var": ""}` a `reduce` can make a list that contains itself.  The operators of flagd may look at it.
    assert "nest deeper" in ours or ours == _outcome(lambda: jsonLogic(rule, data, OPERATORS))


@settings(max_examples=300, deadline=None)
@given(RULES, DATA)
def test_what_passes_validation_stays_below_the_limit_for_short_lists(rule: Any, data: Any) -> None:
    # A list that contains itself has no length; counting it ends at NESTING.
    assume("nest deeper" not in _outcome(lambda: evaluate(rule, data, OPERATORS, Meter())))
    meter = Meter(2 * worst_case(rule) + 100)
    assert "operations" not in _outcome(lambda: evaluate(rule, data, OPERATORS, meter))
