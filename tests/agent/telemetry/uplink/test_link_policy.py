"""Test which lanes may use which link, and when a day ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.telemetry.uplink.link_policy import DAY_S, DayUse, LinkPolicy, seconds_between

EVERYTHING = tuple(Lane)
POLICY = LinkPolicy(frozenset(Lane), 1_000)
EARLIER = Clock(ClockQuality.NETWORK, "boot-1", wall_us=1_000_000_000_000, boottime_us=50_000_000)


@pytest.mark.parametrize("metered", [False, None])
def test_a_link_that_is_not_metered_or_not_known_carries_everything(metered: bool | None) -> None:
    assert LinkPolicy(frozenset(), 0).lanes(metered, DayUse(10**12)) == EVERYTHING


def test_a_metered_link_carries_backlog_within_the_days_bytes_alone() -> None:
    assert POLICY.lanes(True, DayUse(999)) == EVERYTHING
    assert POLICY.lanes(True, DayUse(1_000)) == (Lane.EVENTS, Lane.LIVE)


def test_the_settings_say_what_a_metered_link_carries() -> None:
    assert LinkPolicy(frozenset({Lane.EVENTS}), 1_000).lanes(True, DayUse()) == (Lane.EVENTS,)


def test_a_day_begins_anew_after_24_hours_and_not_before() -> None:
    today = DayUse(500, 100.0).after(DAY_S - 101.0)
    assert today.used_bytes == 500
    assert today.after(2.0) == DayUse(0, 1.0)
    assert DayUse(500, 100.0).after(3 * DAY_S) == DayUse(0, 100.0)


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**12))
def test_a_wall_clock_that_jumps_changes_nothing(jump_us: int, passed_us: int) -> None:
    now = replace(EARLIER, wall_us=EARLIER.wall_us + jump_us, boottime_us=EARLIER.boottime_us + passed_us)
    assert seconds_between(EARLIER, now) == pytest.approx(passed_us / 1e6)


def test_a_machine_that_was_off_counts_that_time_where_both_clocks_are_believed() -> None:
    now = Clock(ClockQuality.NETWORK, "boot-2", wall_us=EARLIER.wall_us + 3_600_000_000, boottime_us=20_000_000)
    assert seconds_between(EARLIER, now) == 3_600.0
    assert seconds_between(replace(EARLIER, quality=ClockQuality.UNSYNCHRONISED), now) == 20.0
    assert seconds_between(EARLIER, replace(now, quality=ClockQuality.UNSYNCHRONISED)) == 20.0


@given(st.integers(-(10**15), 10**15))
def test_over_a_reboot_no_clock_gives_less_than_the_time_since_boot_or_more_than_a_day(jump_us: int) -> None:
    now = Clock(ClockQuality.GNSS, "boot-2", wall_us=EARLIER.wall_us + jump_us, boottime_us=20_000_000)
    assert 20.0 <= seconds_between(EARLIER, now) <= DAY_S
