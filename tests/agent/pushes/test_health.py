from typing import Any

import msgspec
import pytest

from agent.pushes.health import ANSWER, FRAMES, LINK, PROGRESS, Baseline, Readings, baseline, examine

QUOTA = 256_000_000
GOOD = Readings(
    at_s=100.0,
    decoding={"can0": (1_000, 100), "can1": (500, 500)},
    feeding=True,
    memory_bytes=70_000_000,
    cpu_s=20.0,
    written_bytes=1_000_000,
    sent_bytes=1_000_000,
    lost={"evicted_age": 3},
    online=True,
    connections=1,
    waiting=4,
    quota_bytes=QUOTA,
)
BEFORE = baseline(msgspec.structs.replace(GOOD, at_s=0.0, decoding={}, cpu_s=15.0, written_bytes=0), GOOD)
LATER = msgspec.structs.replace(
    GOOD,
    at_s=120.0,
    decoding={"can0": (3_000, 300), "can1": (900, 900)},
    cpu_s=22.0,
    written_bytes=1_200_000,
    sent_bytes=1_300_000,
    acknowledged=5,
)


def bound(before: Baseline = BEFORE, **changes: Any) -> str | None:
    breach = examine(before, GOOD, msgspec.structs.replace(LATER, **changes), frozenset()).breach
    return None if breach is None else f"{breach.bound}: {breach.detail}"


def test_an_agent_that_works_as_before_is_healthy_and_its_figures_say_so() -> None:
    health = examine(BEFORE, GOOD, LATER, frozenset({FRAMES, LINK}))
    assert (health.breach, health.missing) == (None, ())
    assert health.figures == {
        "measured_s": 20.0,
        "frames": 2_400,
        "memory_mb": 70.0,
        "memory_mb_before": 70.0,
        "cpu_percent": 10.0,
        "written_bytes_s": 10_000,
        "sent_bytes": 300_000,
        "lost": 0,
        "decoded_percent": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"failed_sources": ("can1",)}, "sources: capture stopped: can1 failed"),
        ({"stuck_s": 61.0}, "progress: the agent hangs: one step has taken 61 s, and 60 s is the limit"),
        (
            {"decoding": {"can0": (3_000, 1_300)}},
            "decoding: 40.0% of the frames of can0 decode, and at least 45.0% must (90.0% before)",
        ),
        (
            {"memory_bytes": 170_000_000},
            "memory: memory grew by 100 MB to 170 MB, and at most 96 MB are allowed",
        ),
        (
            {"cpu_s": 32.0},
            "cpu: the agent takes 60% of a core, and at most 55% is allowed (5% before)",
        ),
        (
            {"written_bytes": 3_000_000},
            "spool: the agent writes 100.0 KB/s, and at most 71.1 KB/s are allowed (10.0 KB/s before): the spool would "
            "be full within 43 min offline",
        ),
        (
            {"sent_bytes": 3_000_000},
            "uplink: the agent sent 2.0 MB, and at most 0.8 MB are allowed, because there were 0.2 MB to send",
        ),
        (
            {"lost": {"evicted_age": 3, "evicted_quota": 2}},
            "losses: 2 batches were lost (evicted_quota), and none before",
        ),
        (
            {"lost": {"bus_overflow": 30}},
            "losses: 30 frames were lost (bus_overflow) and 2400 were read; the limit is 1%",
        ),
        (
            {"earlier_authorities": True, "connections": 3},
            "link: the broker was reached 2 times, but only by the earlier authorities, never by the pushed ones",
        ),
    ],
)
def test_each_bound_that_is_broken_says_by_how_much(changes: dict[str, Any], expected: str) -> None:
    assert bound(**changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"decoding": {"can0": (3_000, 1_000)}},  # a database without some of the messages
        {"decoding": {"can0": (1_010, 110)}},  # a bus that falls asleep
        {"decoding": {"can1": (900, 900)}},  # a bus that has no database, and had none before
        {"memory_bytes": 160_000_000},
        {"cpu_s": 30.0},
        {"written_bytes": 2_400_000},
        {"sent_bytes": 1_000_000 + 3 * 200_000 + 200_000},
        {"sent_bytes": 3_000_000, "connections": 3},
        {"lost": {"bus_overflow": 20}},
        {"lost": {"open_window": 5}},  # no release causes these
        {"lost": {}},  # the ledger began anew
        {"online": False, "connections": 9},
        {"earlier_authorities": True, "connections": 2},
        {"earlier_authorities": True, "connections": 9, "online": False},
    ],
)
def test_what_a_good_release_may_do_breaks_no_bound(changes: dict[str, Any]) -> None:
    assert bound(**changes) is None


def test_what_went_wrong_before_is_not_the_fault_of_the_release() -> None:
    before = msgspec.structs.replace(BEFORE, losing=("evicted_quota",), failed_sources=("can1",))
    assert bound(before, lost={"evicted_quota": 9}, failed_sources=("can1",)) is None


def test_a_backlog_that_drains_after_days_offline_is_no_flood() -> None:
    first = msgspec.structs.replace(GOOD, waiting_bytes=200_000_000)
    now = msgspec.structs.replace(LATER, sent_bytes=210_000_000)
    assert examine(BEFORE, first, now, frozenset()).breach is None


def test_rates_are_not_judged_before_windows_have_closed() -> None:
    assert bound(at_s=109.0, written_bytes=9_000_000, cpu_s=28.9, sent_bytes=1_000_000) is None


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"decoding": GOOD.decoding}, (FRAMES,)),
        ({"decoding": GOOD.decoding, "feeding": False}, ()),  # the log has ended, or there are no sources
        ({"online": False}, (LINK,)),
        ({"earlier_authorities": True}, (LINK,)),
        ({"acknowledged": 4}, (ANSWER,)),  # four batches waited before, sealed to the earlier key
        ({"stuck_s": 6.0}, (PROGRESS,)),
    ],
)
def test_a_sleeping_bus_and_a_lost_network_are_missing_evidence_and_no_fault(
    changes: dict[str, Any], missing: tuple[str, ...]
) -> None:
    now = msgspec.structs.replace(LATER, **changes)
    health = examine(BEFORE, GOOD, now, frozenset({FRAMES, LINK, ANSWER}))
    assert (health.breach, health.missing) == (None, missing)
    if missing != (PROGRESS,):
        assert examine(BEFORE, GOOD, now, frozenset()).missing == ()


def test_the_state_before_keeps_the_share_of_a_bus_that_fell_asleep() -> None:
    asleep = baseline(GOOD, msgspec.structs.replace(GOOD, at_s=200.0), BEFORE)
    assert asleep.decoded == {"can0": 0.9, "can1": 0.0}
    assert (asleep.cpu_share, asleep.losing) == (0.0, ())


def test_without_a_history_rates_are_unknown() -> None:
    assert baseline(GOOD, GOOD).cpu_share is None
    assert bound(baseline(GOOD, GOOD), cpu_s=120.0) is None
