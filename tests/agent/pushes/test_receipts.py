import pytest

from agent.formats.up.columns import Event
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.pushes.release import Reason


def test_an_applied_push_has_a_receipt() -> None:
    assert receipt(PushOutcome(Result.APPLIED, 7), 5) == Event(5, "push_applied", {"version": 7})


@pytest.mark.parametrize(("result", "kind"), [(Result.REFUSED, "push_refused"), (Result.REVERTED, "push_reverted")])
def test_a_receipt_says_why(result: Result, kind: str) -> None:
    event = receipt(PushOutcome(result, 7, Reason.EXPIRED, "x" * 1000), 5)
    assert event == Event(5, kind, {"version": 7, "reason": "expired", "detail": "x" * 300})


def test_a_passed_trial_has_a_receipt() -> None:
    assert receipt(PushOutcome(Result.CONFIRMED, 7), 5) == Event(5, "push_confirmed", {"version": 7})


def test_what_changed_nothing_has_no_receipt() -> None:
    assert receipt(PushOutcome(Result.UNCHANGED, 7), 5) is None
