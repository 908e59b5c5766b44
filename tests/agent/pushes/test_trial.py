import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from agent.pushes.health import ANSWER, FRAMES, LINK, Breach, Health
from agent.pushes.trial import (
    CRASHES,
    EVIDENCE_S,
    LATER_CRASHES,
    POWER_CUTS,
    Decision,
    Ref,
    Slots,
    close,
    commit,
    confirm,
    endured,
    fall_back,
    judge,
    refuse,
    restart,
    revert,
    steady,
)

GOOD, NEW, NEWER = Ref(1, "a"), Ref(2, "b"), Ref(3, "c")
BOOT = "a boot"
RUNNING = commit(Slots(current=GOOD), NEW, BOOT)


def test_a_committed_release_is_in_force_and_the_one_before_is_kept() -> None:
    assert (RUNNING.in_force, RUNNING.current) == (NEW, GOOD)


def test_a_healthy_trial_becomes_current() -> None:
    assert confirm(RUNNING) == Slots(current=NEW, before=GOOD, open_in=BOOT)


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
    assert confirm(slots) == Slots(current=NEW, before=GOOD, open_in="3")


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


def crash(slots: Slots, times: int) -> Slots:
    for _ in range(times):
        slots = restart(slots, BOOT)
    return slots


def test_a_release_that_crashes_the_agent_after_its_trial_leads_back_to_the_one_before() -> None:
    proved = confirm(RUNNING)
    assert crash(proved, LATER_CRASHES - 1).in_force == NEW
    assert crash(proved, LATER_CRASHES) == Slots(current=GOOD, open_in=BOOT, refused=2)


def test_if_the_release_before_crashes_too_none_is_in_force_and_nothing_is_left_to_take_back() -> None:
    slots = crash(confirm(RUNNING), 2 * LATER_CRASHES)
    assert slots == Slots(refused=2)
    assert crash(slots, 2 * LATER_CRASHES) == slots


def test_crashes_of_the_last_known_good_count_after_a_trial_that_failed() -> None:
    slots = commit(confirm(RUNNING), NEWER, BOOT)
    assert crash(slots, CRASHES).in_force == NEW
    assert crash(slots, CRASHES + LATER_CRASHES) == Slots(current=GOOD, open_in=BOOT, refused=3)


def test_power_cuts_and_stops_on_request_never_take_back_a_release_that_has_passed_its_trial() -> None:
    cut = stopped = confirm(RUNNING)
    for boot in range(3 * POWER_CUTS):
        cut = restart(cut, str(boot))
        stopped = restart(close(stopped), BOOT)
    assert (cut.in_force, cut.crashes) == (NEW, 0)
    assert (stopped.in_force, stopped.crashes) == (NEW, 0)


def test_crashes_with_long_runs_between_them_never_take_back_a_release_that_has_passed_its_trial() -> None:
    slots = confirm(RUNNING)
    for _ in range(20):
        slots = steady(crash(slots, LATER_CRASHES - 1))
    assert slots.in_force == NEW


def test_a_long_run_does_not_end_a_trial_or_forget_its_crashes() -> None:
    crashed = restart(RUNNING, BOOT)
    assert steady(crashed) == crashed


def test_a_release_that_is_tried_again_because_its_file_was_damaged_does_not_become_its_own_predecessor() -> None:
    again = commit(confirm(RUNNING), NEW, BOOT)
    assert confirm(again).before == GOOD


def test_a_newer_release_takes_over_a_running_trial_and_keeps_the_last_known_good() -> None:
    assert commit(restart(RUNNING, BOOT), NEWER, BOOT) == Slots(current=GOOD, trial=NEWER, open_in=BOOT)


def test_time_and_health_decide() -> None:
    broken = Health(Breach("memory", "too much"))
    assert judge(running_s=1, trial_s=60, health=Health()) is Decision.WAIT
    assert judge(running_s=60, trial_s=60, health=Health()) is Decision.CONFIRM
    assert judge(running_s=1, trial_s=60, health=broken) is Decision.REVERT


def test_a_trial_waits_for_evidence_but_not_for_ever() -> None:
    offline, asleep, unheard = Health(missing=(LINK,)), Health(missing=(FRAMES,)), Health(missing=(ANSWER,))
    for health in (offline, asleep, unheard):
        assert judge(running_s=EVIDENCE_S - 1, trial_s=60, health=health) is Decision.WAIT
    assert judge(running_s=EVIDENCE_S, trial_s=60, health=asleep) is Decision.CONFIRM
    assert judge(running_s=EVIDENCE_S, trial_s=60, health=offline) is Decision.REVERT
    assert judge(running_s=EVIDENCE_S, trial_s=60, health=unheard) is Decision.REVERT


def test_short_trips_while_the_trial_waits_never_refuse_the_release() -> None:
    slots = RUNNING
    for boot in range(3 * POWER_CUTS):
        slots = endured(restart(slots, str(boot)))
    assert (slots.in_force, slots.power_cuts) == (NEW, 0)


def test_crashes_count_although_the_trial_waits() -> None:
    slots = RUNNING
    for _ in range(CRASHES):
        slots = endured(restart(slots, BOOT))
    assert slots.in_force == GOOD


ACTIONS = ("commit", "refuse", "restart", "reboot", "close", "steady", "confirm", "revert", "fall back")


@given(st.lists(st.sampled_from(ACTIONS), max_size=60))
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
            case "steady":
                slots = steady(slots)
            case "revert":
                slots = revert(slots)
            case "fall back":
                slots = fall_back(slots)
        if action != "commit" and before.in_force is not None and slots.in_force != before.in_force:
            given_up.add(before.in_force.version)
        assert slots.in_force is None or slots.in_force != slots.before
        assert (slots.open_in is None) or slots.in_force is not None
        assert slots.in_force is None or slots.in_force.version not in given_up
        assert max(given_up, default=0) == slots.refused
