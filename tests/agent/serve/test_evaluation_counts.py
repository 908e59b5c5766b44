"""Test that evaluations are counted, and that the reports are bounded and say nothing about apps."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from agent.formats.down.evaluation import Evaluator
from agent.formats.down.toggles import parse_toggles
from agent.serve.evaluation_counts import EVENTS, EvaluationCounts
from agent.serve.http import Request
from agent.serve.toggles import EVALUATE, ToggleService
from tests.agent.serve.test_toggles import CAR, DOCUMENT, FLAGS

SECRET = "anna@example.org"


def asked(key: str | None, headers: Mapping[str, str] | None = None, **context: Any) -> Request:
    body = json.dumps({"context": {"targetingKey": SECRET, **context}}).encode()
    return Request("POST", EVALUATE if key is None else f"{EVALUATE}/{key}", headers or {}, body)


def service() -> ToggleService:
    found = ToggleService(CAR)
    found.replace(Evaluator(parse_toggles(DOCUMENT, "t.json")))
    return found


def counted(service: ToggleService) -> dict[tuple[Any, Any], Any]:
    return {(event["toggle"], event["variant"]): event["evaluations"] for event in service.counts.take()}


def test_each_answer_counts_for_its_toggle_and_variant() -> None:
    toggles = service()
    for _ in range(3):
        toggles.evaluate_one(asked("level"))
    toggles.evaluate_one(asked("fragile", divisor=0))  # its rule fails
    toggles.evaluate_one(asked("yours"))  # the app's own code decides
    toggles.evaluate_one(asked("no-such-flag"))
    assert counted(toggles) == {("level", "high"): 3, ("fragile", ""): 1, ("yours", ""): 1}
    assert counted(toggles) == {}


def test_a_bulk_answer_counts_every_flag_unless_nothing_is_new() -> None:
    toggles = service()
    tag = toggles.evaluate_all(asked(None)).headers["ETag"]
    assert sum(counted(toggles).values()) == len(FLAGS) - 1  # one flag is disabled
    assert toggles.evaluate_all(asked(None, {"if-none-match": tag})).status == 304
    assert counted(toggles) == {}


def test_the_status_page_of_the_agent_counts_nothing() -> None:
    toggles = service()
    asyncio.run(toggles.values(None))
    toggles.evaluate("plain")
    assert counted(toggles) == {}


def test_reports_carry_nothing_that_an_app_sent() -> None:
    toggles = service()
    toggles.evaluate_one(asked("profile", city="Ulm"))
    (event,) = toggles.counts.take()
    assert set(event) == {"toggle", "variant", "evaluations", "seconds"}
    assert SECRET not in json.dumps(event)
    assert "Ulm" not in json.dumps(event)


def test_a_report_is_bounded_and_loses_no_evaluation() -> None:
    counts = EvaluationCounts()
    for number in range(1_000):
        counts.add([(f"toggle-{number}" * 50, "on")] * (number + 1))
    events = counts.take()
    assert len(events) == EVENTS
    assert sum(int(event["evaluations"]) for event in events) == 1_000 * 1_001 / 2
    assert (events[-1]["toggle"], events[-1]["toggles_together"]) == ("", 801)
    assert max(len(json.dumps(event)) for event in events) < 400


def test_counts_are_reported_once_an_hour_and_at_the_stop() -> None:
    now_s = 0.0
    counts = EvaluationCounts(lambda: now_s)
    reports: list[tuple[str, Any]] = []

    async def run() -> None:
        nonlocal now_s
        reporting = asyncio.create_task(counts.run(lambda kind, fields: reports.append((kind, fields)), 0.01))
        counts.add([("a", "on")])
        now_s = 3_600.4
        while not reports:
            await asyncio.sleep(0.001)
        counts.add([("b", "off")])
        reporting.cancel()
        await asyncio.wait({reporting})

    asyncio.run(run())
    assert reports[0] == ("toggle_evaluations", {"toggle": "a", "variant": "on", "evaluations": 1, "seconds": 3_600})
    assert [fields["toggle"] for _, fields in reports] == ["a", "b"]
