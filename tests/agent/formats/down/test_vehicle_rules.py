"""Test that OFREP and every reader of flagd's file give an app the same answer, however the reader hashes."""

import json
import subprocess
import sys
import time
from typing import Any

import mmh3
import pytest
from hypothesis import given, settings
from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS, jsonLogic

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import Evaluator, for_vehicle, vehicle_context
from agent.formats.down.toggles import parse_toggles
from agent.serve.http import Request
from agent.serve.toggles import EVALUATE, ToggleService
from tests.agent.formats.down.murmur import by_cbor, by_text, fractional, murmur3
from tests.agent.formats.down.test_rules import DATA, RULES
from tests.agent.formats.down.test_toggles import FLAG, SAMPLE

READERS = {
    "text": OPERATORS | {"fractional": fractional(by_text)},
    "cbor": OPERATORS | {"fractional": fractional(by_cbor)},
}
CARS = [Attributes(f"{n:032x}", "Aria", "One", "DE" if n % 2 else "US", 2024 + n % 4) for n in range(1, 120)]
SHARES = [["on", 10], ["off", 90]]
NOW = {"var": "$flagd.timestamp"}
"""Rules that the vehicle can work out by itself, apart from the time."""
OWN: dict[str, Any] = {
    "share of the vehicle": {"fractional": SHARES},
    "share by name": {"fractional": [{"var": "vehicle"}, *SHARES]},
    "share by flag and name": {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "vehicle"}]}, *SHARES]},
    "share by key": {"fractional": [{"cat": ["salt", {"var": "targetingKey"}]}, *SHARES]},
    "equal shares": {"fractional": [["on"], ["off"]]},
    "share in a branch": {"if": [{"==": [{"var": "market"}, "DE"]}, {"fractional": SHARES}, "off"]},
    "share as a condition": {"if": [{"==": [{"fractional": SHARES}, "on"]}, "off", "on"]},
    "growing share": {"fractional": [["on", {"%": [NOW, 1]}], ["off", 5]]},
    "share over time": {"fractional": [["on", {"-": [NOW, 1_600_000_000]}], ["off", {"-": [2_500_000_000, NOW]}]]},
    "too much weight": {"fractional": [["on", {"-": [NOW, 1_000_000_000]}], ["on", {"-": [4_000_000_000, NOW]}]]},
    "negative weight": {"fractional": [["on", {"-": [0, NOW]}], ["off", 5]]},
    "no weight": {"fractional": [["on", {"-": [0, NOW]}], ["off", {"-": [0, NOW]}]]},
    "brand": {"if": [{"==": [{"var": "brand"}, "Aria"]}, "on", "off"]},
    "model year": {"if": [{">=": [{"var": "model_year"}, 2026]}, "on", "off"]},
    "model year by its first name": {"if": [{">=": [{"var": "modelYear"}, 2026]}, "on", "off"]},
    "a division": {"if": [{"<": [{"/": [{"var": "model_year"}, 2]}, 1013]}, "on", "off"]},
    "several subtractions": {"if": [{"==": [{"-": [{"var": "model_year"}, 1, 2, 2000]}, 23]}, "on", "off"]},
    "is key": {"if": [{"==": [{"var": "targetingKey"}, CARS[3].vehicle]}, "on", "off"]},
    "in a list": {"if": [{"in": [{"var": "vehicle"}, [car.vehicle for car in CARS[::3]]]}, "on", "off"]},
    "nothing missing": {"if": [{"missing": ["brand", "model", "targetingKey"]}, "on", "off"]},
    "a branch that would fail": {"if": [{"var": "brand"}, "on", {"%": [1, {"-": [{"var": "model_year"}, 2025]}]}]},
    "no variant": {"if": [{"==": [{"var": "market"}, "DE"]}, None, "on"]},
}
"""Rules that also ask for something of the app.  None of them takes shares by it."""
OF_APPS: dict[str, Any] = {
    "both": {"if": [{"and": [{"var": "premium"}, {"==": [{"var": "market"}, "DE"]}]}, {"fractional": SHARES}, "off"]},
    "missing of an app": {"if": [{"missing": ["brand", "premium"]}, "on", "off"]},
    "some missing": {"if": [{"missing_some": [2, ["brand", "premium", "profile"]]}, "on", "off"]},
    "seats": {"if": [{"some": [{"var": "seats"}, {"==": [{"var": "row"}, 2]}]}, {"fractional": SHARES}, "off"]},
    "brand inside a loop": {"if": [{"some": [{"var": "seats"}, {"var": "brand"}]}, "on", "off"]},
    "subtractions": {"if": [{"==": [{"-": [{"var": "level"}, 2, 3]}, 5]}, "on", "off"]},
}
CONTEXTS: list[dict[str, Any]] = [
    {},
    {"premium": True, "seats": [{"row": 2}], "level": 10},
    {"profile": "x", "seats": [{"brand": "Aria"}], "level": 8},
]


def document(rules: dict[str, Any]) -> bytes:
    return json.dumps({"flags": {key: FLAG | {"targeting": rule} for key, rule in rules.items()}}).encode()


def file_of(content: bytes, car: Attributes) -> Any:
    return json.loads(for_vehicle(parse_toggles(content, "t.json"), car).resolved)["flags"]


def read(flags: Any, key: str, context: dict[str, Any], operators: Any) -> str:
    """Answer as a library does that reads the file and knows nothing but `context`."""
    known = {"flagKey": key, "timestamp": int(time.time())}
    outcome = jsonLogic(flags[key]["targeting"], context | {"$flagd": known}, operators)
    return str(flags[key]["defaultVariant"] if outcome is None else outcome)


def ofrep(service: ToggleService, key: str, context: dict[str, Any]) -> str:
    request = Request("POST", f"{EVALUATE}/{key}", {}, json.dumps({"context": context}).encode())
    return str(json.loads(service.evaluate_one(request).body)["variant"])


def serving(content: bytes, car: Attributes) -> ToggleService:
    service = ToggleService(car)
    service.replace(Evaluator(for_vehicle(parse_toggles(content, "t.json"), car)))
    return service


def test_our_murmur3_is_the_public_one() -> None:
    assert murmur3(b"") == 0
    assert murmur3(b"test") == 0xBA6BD213
    assert all(murmur3(bytes(range(n))) == mmh3.hash(bytes(range(n)), signed=False) for n in range(40))


def test_readers_of_the_published_document_would_disagree() -> None:
    flags = json.loads(document({"new": {"fractional": SHARES}}))["flags"]
    contexts = [{"targetingKey": car.vehicle} for car in CARS]
    answers = {name: [read(flags, "new", context, reader) for context in contexts] for name, reader in READERS.items()}
    assert 5 < sum(a != b for a, b in zip(answers["text"], answers["cbor"], strict=True)) < 40


@pytest.mark.parametrize("rule", [*OWN, *OF_APPS])
@pytest.mark.parametrize("reader", READERS)
def test_ofrep_and_the_file_agree_whatever_the_reader_hashes(rule: str, reader: str) -> None:
    content = document({rule: (OWN | OF_APPS)[rule]})
    for car in CARS[:40]:
        flags, service = file_of(content, car), serving(content, car)
        for context in CONTEXTS:
            asked = ofrep(service, rule.replace(" ", "%20"), context)
            # Libraries send the key of an app that has none as nothing, null or empty text.
            for key in ({}, {"targetingKey": None}, {"targetingKey": ""}, {"targetingKey": car.vehicle}):
                assert read(flags, rule, context | key, READERS[reader]) == asked


@pytest.mark.parametrize("rule", [*OWN, *OF_APPS])
def test_the_rewritten_rule_means_what_the_published_one_means(rule: str) -> None:
    content = document({rule: (OWN | OF_APPS)[rule]})
    published = Evaluator(parse_toggles(content, "t.json"))
    for car in CARS[:40]:
        service = serving(content, car)
        for context in CONTEXTS:
            for key in (car.vehicle, "anna"):
                sent = context | {"targetingKey": key}
                expected = published.evaluate(rule, sent | vehicle_context(car) | {"targetingKey": key}).variant
                assert ofrep(service, rule.replace(" ", "%20"), sent) == expected


def test_the_share_of_the_vehicle_is_the_one_that_it_has_in_our_evaluator() -> None:
    content = document({"new": {"fractional": SHARES}})
    for car in CARS:
        # The library hashes CBOR, of the key of the flag and the key of the app.
        place = murmur3(by_cbor("new", car.vehicle, None) or b"") * 100 >> 32
        assert ofrep(serving(content, car), "new", {}) == ("on" if place < 10 else "off")


@pytest.mark.parametrize("rule", OWN.values(), ids=OWN)
def test_the_file_has_no_share_and_no_fact_left_for_an_app_without_a_key(rule: Any) -> None:
    text = json.dumps(file_of(document({"f": rule}), CARS[0])["f"]["targeting"].get("if", [None, None])[1])
    assert "fractional" not in text
    assert not any(f'"{name}"' in text for name in ("brand", "vehicle", "market", "modelYear", "model_year"))


def test_a_profile_with_its_own_key_keeps_its_own_share() -> None:
    content, car = document({"new": {"fractional": SHARES}}), CARS[0]
    flags, service = file_of(content, car), serving(content, car)
    people = [f"profile-{n}" for n in range(200)]
    asked = [ofrep(service, "new", {"targetingKey": person}) for person in people]
    assert 5 < asked.count("on") < 40
    assert [read(flags, "new", {"targetingKey": person}, READERS["cbor"]) for person in people] == asked


def test_a_rule_stays_as_it_is_where_its_constant_would_be_no_json() -> None:
    rules = {"huge": {"if": [{"==": [{"*": [2**52, 2**52, {"var": "model_year"}]}, 1]}, "on", "off"]}}
    assert '"*"' in json.dumps(file_of(document(rules), CARS[0]))


def test_the_sample_agrees_as_well() -> None:
    content = SAMPLE.read_bytes()
    for car in CARS:
        flags, service = file_of(content, car), serving(content, car)
        for key in ("new-navigation", "voice-assistant", "energy-page"):
            for reader in READERS.values():
                assert read(flags, key, {}, reader) == ofrep(service, key, {})


def test_a_confined_process_imports_nothing_later() -> None:
    program = """
import sys
from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import check_toggles, for_vehicle, import_evaluator
from agent.formats.down.toggles import parse_toggles

import_evaluator()
before = set(sys.modules)
rule = b'{"if": [{"==": [{"var": "brand"}, "A"]}, {"fractional": [["on", 1], ["off", 1]]}, "off"]}'
flag = b'{"state": "ENABLED", "variants": {"on": true, "off": false}, "targeting": ' + rule + b"}"
toggles = parse_toggles(b'{"flags": {"f": ' + flag + b"}}", "t.json")
check_toggles(for_vehicle(toggles, Attributes("v", "A", "m", "DE", 2026)), "t.json", ({},))
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_roll_out_by_time_may_have_eight_shares() -> None:
    shares = [["on", NOW], *([["off", 1]] * 7)]
    assert file_of(document({"f": {"fractional": shares}}), CARS[0])
    with pytest.raises(Permanent, match="at most 8 shares"):
        parse_toggles(document({"f": {"fractional": [*shares, ["on", 1]]}}), "t.json")
    nested = {"if": [{"==": [{"fractional": SHARES}, "on"]}, 1, 2]}
    with pytest.raises(Permanent, match="no 'fractional' in its weights"):
        parse_toggles(document({"f": {"fractional": [["on", nested], ["off", 1]]}}), "t.json")


@settings(max_examples=500, deadline=None)
@given(RULES, DATA)
def test_any_rule_gives_the_same_before_and_after(rule: Any, data: Any) -> None:
    condition = {"if": [{"==": [{"cat": [rule]}, "a"]}, "on", "off"]}
    try:
        parsed = parse_toggles(document({"f": condition}), "t.json")
    except Permanent:
        return
    # An app that sends facts about the vehicle is not believed, so `data` names other attributes.
    context = data | {"targetingKey": "anna"}
    before = _answer(Evaluator(parsed), context | vehicle_context(CARS[0]) | {"targetingKey": "anna"})
    after = _answer(
        Evaluator(for_vehicle(parsed, CARS[0])), context | vehicle_context(CARS[0]) | {"targetingKey": "anna"}
    )
    assert before == after


def _answer(evaluator: Evaluator, context: Any) -> str | None:
    try:
        return evaluator.evaluate("f", context).variant
    except Permanent:
        return "failed"
