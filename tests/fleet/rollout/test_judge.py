"""Receipts decide: when a stage stops, when it waits, and when it ends."""

from collections import Counter

import pytest

from fleet.rollout.judge import Tally, Verdict, exceeds, judge
from fleet.rollout.plan import Plan

PLAN = Plan((1.0, 100.0), hold_s=100.0, limit_percent=0.5, need_percent=50.0)


def tally(vehicles: int, confirmed: int, failed: int) -> Tally:
    return Tally(vehicles, confirmed, failed, Counter({"unhealthy": failed}) if failed else Counter())


@pytest.mark.parametrize(
    ("vehicles", "confirmed", "failed", "stops"),
    [
        (340_000, 0, 1, False),  # the first report of a large stage proves nothing
        (340_000, 198, 2, True),  # 2 of 200 are 1 %
        (340_000, 199, 1, False),  # 1 of 200 is 0.5 %, which is allowed
        (340_000, 300_000, 1_507, False),
        (340_000, 300_000, 1_508, True),
        (18, 0, 1, True),  # more than 0.5 % of a small stage in any case
        (18, 17, 0, False),
    ],
)
def test_more_failures_than_the_limit_stop_a_stage(vehicles: int, confirmed: int, failed: int, stops: bool) -> None:
    found = tally(vehicles, confirmed, failed)
    assert exceeds(found, 0.5) is stops
    verdict = judge(PLAN, 1.0, found, found, held_s=0.0).verdict
    assert (verdict is Verdict.STOP) is stops


def test_a_limit_of_zero_allows_no_failure() -> None:
    assert exceeds(tally(1_000_000, 999_999, 1), 0.0)
    assert not exceeds(tally(1_000_000, 999_999, 0), 0.0)


def test_good_vehicles_of_earlier_stages_do_not_hide_the_failures_of_the_latest() -> None:
    added, everyone = tally(1_000, 980, 20), tally(100_000, 99_000, 20)
    assert judge(PLAN, 1.0, added, everyone, 0.0).verdict is Verdict.STOP


def test_a_failure_that_comes_late_in_an_earlier_stage_stops_the_roll_out() -> None:
    judgement = judge(PLAN, 1.0, tally(1_000, 10, 0), tally(2_000, 900, 20), 0.0)
    assert judgement.verdict is Verdict.STOP
    assert "unhealthy 20" in judgement.why


def test_a_stage_waits_for_its_time_and_for_its_reports() -> None:
    half = tally(1_000, 500, 0)
    assert judge(PLAN, 1.0, half, half, 99.0).verdict is Verdict.WAIT
    assert judge(PLAN, 1.0, half, half, 100.0).verdict is Verdict.GO_ON
    few = tally(1_000, 499, 0)
    assert judge(PLAN, 1.0, few, few, 10**9).verdict is Verdict.WAIT
    assert judge(PLAN, 1.0, few, few, -5.0).verdict is Verdict.WAIT  # the clock was set back


def test_an_operator_who_hurries_cannot_pass_the_limit() -> None:
    assert judge(PLAN, 1.0, tally(1_000, 0, 0), tally(1_000, 0, 0), 0.0, hurry=True).verdict is Verdict.GO_ON
    failed = tally(1_000, 0, 20)
    assert judge(PLAN, 1.0, failed, failed, 10**9, hurry=True).verdict is Verdict.STOP


def test_a_stage_without_vehicles_is_held_like_any_other() -> None:
    none, others = tally(0, 0, 0), tally(10, 10, 0)
    for everyone in (none, others):
        waiting = judge(PLAN, 1.0, none, everyone, 99.0)
        assert waiting.verdict is Verdict.WAIT
        assert "The stage of 1 % is held for 1 s more. It has added no vehicle" in waiting.why
        ended = judge(PLAN, 1.0, none, everyone, 100.0)
        assert (ended.verdict, ended.why) == (Verdict.GO_ON, "The stage of 1 % was held, and has added no vehicle.")
    assert judge(PLAN, 1.0, none, none, 0.0, hurry=True).verdict is Verdict.GO_ON


def test_every_reason_names_the_stage_that_it_is_about() -> None:
    good = tally(10, 10, 0)
    for held_s, hurry in ((0.0, False), (0.0, True), (100.0, False)):
        assert "stage of 1 %" in judge(PLAN, 1.0, good, good, held_s, hurry=hurry).why
    assert "stage of 1 %" in judge(PLAN, 1.0, tally(10, 0, 0), good, 100.0).why
    assert "stage of 1 %" in judge(PLAN, 1.0, tally(10, 0, 10), good, 0.0).why
