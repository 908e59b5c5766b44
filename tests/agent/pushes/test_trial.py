import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from agent.pushes.trial import (
    CRASHES,
    POWER_CUTS,
    Decision,
    Ref,
    Slots,
    close,
    commit,
    confirm,
    judge,
    refuse,
    restart,
    revert,
)

GOOD, NEW, NEWER = Ref(1, "a"), Ref(2, "b"), Ref(3, "c")
BOOT = "a boot"
RUNNING = commit(Slots(current=GOOD), NEW, BOOT)


def test_a_committed_release_is_in_force_and_the_one_before_is_kept() -> None:
    assert (RUNNING.in_force, RUNNING.current) == (NEW, GOOD)


def test_a_healthy_trial_becomes_current() -> None:
    assert confirm(RUNNING) == Slots(current=NEW)


def test_a_failed_trial_falls_back_and_is_not_offered_again() -> None:
    back = revert(RUNNING)
    assert back.in_force == GOOD
    assert back.settled == (1, 2)


def test_the_first_release_ever_falls_back_to_none() -> None:
    assert revert(commit(Slots(), NEW, BOOT)).in_force is None


def starts_until_reverted(boots: Iterator[str]) -> int:
    slots, starts = RUNNING, 1
    while slots.trial is not None:
        slots = restart(slots, next(boots))
        starts += 1
    assert slots.in_force == GOOD
    return starts


def test_a_release_that_kills_the_agent_is_given_up_after_three_crashes() -> None:
    assert starts_until_reverted(itertools.repeat(BOOT)) == CRASHES + 1


def test_three_power_cuts_leave_a_release_on_trial() -> None:
    slots = RUNNING
    for boot in "123":
        slots = restart(slots, boot)
    assert slots.in_force == NEW
    assert confirm(slots) == Slots(current=NEW)


def test_a_release_that_takes_the_machine_down_is_given_up_in_the_end() -> None:
    assert starts_until_reverted(map(str, itertools.count())) == POWER_CUTS + 1


def test_a_power_cut_does_not_excuse_the_crashes_before_and_after_it() -> None:
    assert starts_until_reverted(iter([BOOT, BOOT, "2", "2"])) == 5  # a crash, a crash, a power cut, a crash


def test_an_unknown_boot_counts_as_a_crash() -> None:
    assert starts_until_reverted(itertools.repeat("")) == CRASHES + 1


def test_clean_stops_count_as_nothing() -> None:
    slots = RUNNING
    for _ in range(20):
        slots = restart(close(slots), BOOT)
    assert slots == RUNNING
    for boot in range(20):
        slots = restart(close(slots), str(boot))
    assert (slots.crashes, slots.power_cuts) == (0, 0)


def test_a_proved_release_is_never_given_up_by_restarts() -> None:
    slots = confirm(RUNNING)
    for _ in range(20):
        slots = restart(slots, BOOT)
    assert slots.in_force == NEW


def test_a_newer_release_takes_over_a_running_trial_and_keeps_the_last_known_good() -> None:
    assert commit(restart(RUNNING, BOOT), NEWER, BOOT) == Slots(current=GOOD, trial=NEWER, open_in=BOOT)


def test_time_and_health_decide() -> None:
    assert judge(running_s=1, trial_s=60, healthy=True) is Decision.WAIT
    assert judge(running_s=60, trial_s=60, healthy=True) is Decision.CONFIRM
    assert judge(running_s=60, trial_s=60, healthy=False) is Decision.REVERT


@given(st.lists(st.sampled_from(["commit", "refuse", "restart", "reboot", "close", "confirm", "revert"]), max_size=30))
def test_what_is_in_force_was_committed_and_never_refused(actions: list[str]) -> None:
    slots, version, given_up, boot = Slots(), 0, set(), BOOT
    for action in actions:
        before = slots
        if action in ("commit", "refuse"):
            version += 1
        match action:
            case "commit":
                slots = commit(slots, Ref(version, "x"), boot)
            case "refuse":
                slots = refuse(slots, version)
                given_up.add(version)
            case "restart":
                slots = restart(slots, boot)
            case "reboot":
                boot += "."
                slots = restart(slots, boot)
            case "close":
                slots = close(slots)
            case "confirm":
                slots = confirm(slots)
            case "revert":
                slots = revert(slots)
        if before.trial is not None and slots.trial is None and slots.current == before.current:
            given_up.add(before.trial.version)
        assert slots.in_force is None or slots.in_force.version not in given_up
        assert max(given_up, default=0) == slots.refused
