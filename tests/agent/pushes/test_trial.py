from hypothesis import given
from hypothesis import strategies as st

from agent.pushes.trial import (
    ATTEMPTS,
    Decision,
    Ref,
    Slots,
    commit,
    confirm,
    give_back,
    judge,
    refuse,
    restart,
    revert,
)

GOOD, NEW, NEWER = Ref(1, "a"), Ref(2, "b"), Ref(3, "c")
RUNNING = commit(Slots(current=GOOD), NEW)


def test_a_committed_release_is_in_force_and_the_one_before_is_kept() -> None:
    assert (RUNNING.in_force, RUNNING.current) == (NEW, GOOD)


def test_a_healthy_trial_becomes_current() -> None:
    assert confirm(RUNNING) == Slots(current=NEW)


def test_a_failed_trial_falls_back_and_is_not_offered_again() -> None:
    back = revert(RUNNING)
    assert back.in_force == GOOD
    assert back.settled == (1, 2)


def test_the_first_release_ever_falls_back_to_none() -> None:
    assert revert(commit(Slots(), NEW)).in_force is None


def test_a_release_that_kills_the_agent_runs_out_of_attempts() -> None:
    slots, starts = RUNNING, 1
    while slots.trial is not None:
        slots = restart(slots)
        starts += 1
    assert starts == ATTEMPTS + 1
    assert slots.in_force == GOOD


def test_clean_stops_use_up_no_attempt() -> None:
    slots = RUNNING
    for _ in range(20):
        slots = restart(give_back(slots))
    assert slots == RUNNING


def test_a_proved_release_is_never_given_up_by_restarts() -> None:
    slots = confirm(RUNNING)
    for _ in range(20):
        slots = restart(slots)
    assert slots.in_force == NEW


def test_a_newer_release_takes_over_a_running_trial_and_keeps_the_last_known_good() -> None:
    assert commit(RUNNING, NEWER) == Slots(current=GOOD, trial=NEWER, attempts=1)


def test_time_and_health_decide() -> None:
    assert judge(running_s=1, trial_s=60, healthy=True) is Decision.WAIT
    assert judge(running_s=60, trial_s=60, healthy=True) is Decision.CONFIRM
    assert judge(running_s=60, trial_s=60, healthy=False) is Decision.REVERT


@given(st.lists(st.sampled_from(["commit", "refuse", "restart", "give back", "confirm", "revert"]), max_size=30))
def test_what_is_in_force_was_committed_and_never_refused(actions: list[str]) -> None:
    slots, version, given_up = Slots(), 0, set()
    for action in actions:
        before = slots
        if action in ("commit", "refuse"):
            version += 1
        match action:
            case "commit":
                slots = commit(slots, Ref(version, "x"))
            case "refuse":
                slots = refuse(slots, version)
                given_up.add(version)
            case "restart":
                slots = restart(slots)
            case "give back":
                slots = give_back(slots)
            case "confirm":
                slots = confirm(slots)
            case "revert":
                slots = revert(slots)
        if before.trial is not None and slots.trial is None and slots.current == before.current:
            given_up.add(before.trial.version)
        assert slots.in_force is None or slots.in_force.version not in given_up
        assert max(given_up, default=0) == slots.refused
