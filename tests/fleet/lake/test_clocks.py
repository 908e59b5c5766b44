"""Times of a vehicle are corrected if its clock was set after the vehicle had begun to send."""

from dataclasses import replace

import pytest

from agent.formats.up.columns import Clock, ClockQuality
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.query import ask_sql
from tests.fleet.lake.test_ledger import batch, fill
from tests.fleet.vehicles import T0_US

BOOT_US = T0_US  # the true wall time of the boot
WRONG_US = 500_000_000  # the time that the clock showed at the boot, in 1970


def at(seq: int, boottime_s: float, quality: ClockQuality, *, stamped_us: int, boot: str = "boot") -> OpenedBatch:
    """Return a batch that closed `boottime_s` after the boot, with samples of the 10 s before."""
    usual = batch(seq)
    t_us = round(boottime_s * 1e6)
    clock = Clock(quality, boot, stamped_us + t_us, t_us)
    window = usual.window
    start_us = stamped_us + t_us - 10_000_000
    shift = start_us - int(window.groups[0].t_us[0])
    groups = tuple(replace(group, t_us=group.t_us + shift) for group in window.groups)
    moved = replace(window, start_us=start_us, end_us=start_us + 10_000_000, clock=clock, groups=groups)
    return replace(usual, window=moved)


def firsts(uri: str) -> list[tuple[object, ...]]:
    """Return (seq, first corrected time in microseconds since the true boot, quality of the times) for each batch."""
    sql = f"""SELECT seq, epoch_us(min(time_corrected)) - {BOOT_US}, any_value(time_quality)
              FROM samples_corrected GROUP BY seq ORDER BY seq"""
    return list(ask_sql(uri, sql).rows)


def test_a_later_good_clock_of_the_same_boot_puts_earlier_times_right(lake: str) -> None:
    fill(
        lake,
        at(1, 20, ClockQuality.UNSYNCHRONISED, stamped_us=WRONG_US),
        at(2, 30, ClockQuality.RTC, stamped_us=WRONG_US),
        at(3, 40, ClockQuality.NETWORK, stamped_us=BOOT_US),
    )
    assert firsts(lake) == [
        (1, 10_000_000, "corrected"),
        (2, 20_000_000, "corrected"),
        (3, 30_000_000, "as stamped"),
    ]
    as_arrived = ask_sql(lake, "SELECT epoch_us(min(time)) FROM samples WHERE seq = 1").rows
    assert as_arrived == ((WRONG_US + 10_000_000,),)


def test_samples_from_before_the_clock_was_set_within_a_window_are_put_right(lake: str) -> None:
    straddling = at(2, 40, ClockQuality.GNSS, stamped_us=BOOT_US)
    group = straddling.window.groups[0]
    t_us = group.t_us.copy()
    t_us[:5] += WRONG_US - BOOT_US  # the first half was stamped before the clock was set
    window = replace(straddling.window, groups=(replace(group, t_us=t_us),))
    fill(lake, at(1, 20, ClockQuality.UNSYNCHRONISED, stamped_us=WRONG_US), replace(straddling, window=window))
    sql = f"""SELECT epoch_us(time_corrected) - {BOOT_US}, time_quality FROM samples_corrected
              WHERE seq = 2 AND signal = 'Speed.Gear' ORDER BY row"""
    expected = [(30_000_000 + n * 10_000, "corrected" if n < 5 else "as stamped") for n in range(10)]
    assert list(ask_sql(lake, sql).rows) == expected


def test_a_clock_that_is_set_and_not_marked_as_set_yet_is_a_set_clock(lake: str) -> None:
    """The clock is set first, and the mark of `systemd-timesyncd` comes later.  A batch may close in between."""
    between = at(2, 40, ClockQuality.UNSYNCHRONISED, stamped_us=BOOT_US + 1)
    group = between.window.groups[0]
    t_us = group.t_us.copy()
    t_us[:5] += WRONG_US - BOOT_US  # the first half was stamped before the clock was set
    window = replace(between.window, groups=(replace(group, t_us=t_us),))
    unset = at(1, 20, ClockQuality.UNSYNCHRONISED, stamped_us=WRONG_US)
    fill(lake, unset, replace(between, window=window), at(3, 50, ClockQuality.NETWORK, stamped_us=BOOT_US))
    sql = f"""SELECT epoch_us(time_corrected) - {BOOT_US}, time_quality FROM samples_corrected
              WHERE seq = 2 AND signal = 'Speed.Gear' ORDER BY row"""
    expected = [(30_000_001 + n * 10_000, "corrected" if n < 5 else "as stamped") for n in range(10)]
    assert list(ask_sql(lake, sql).rows) == expected
    assert firsts(lake)[0] == (1, 10_000_000, "corrected")


@pytest.mark.parametrize("boot", ["another", ""])
def test_nothing_is_guessed_from_another_boot(lake: str, boot: str) -> None:
    fill(
        lake,
        at(1, 20, ClockQuality.UNSYNCHRONISED, stamped_us=WRONG_US, boot=boot),
        at(2, 40, ClockQuality.NETWORK, stamped_us=BOOT_US),
    )
    assert firsts(lake)[0] == (1, WRONG_US + 10_000_000 - BOOT_US, "not set")


def test_times_of_a_recording_are_left_alone(lake: str) -> None:
    fill(
        lake,
        at(1, 20, ClockQuality.RECORDED, stamped_us=WRONG_US),
        at(2, 40, ClockQuality.NETWORK, stamped_us=BOOT_US),
    )
    assert firsts(lake)[0] == (1, WRONG_US + 10_000_000 - BOOT_US, "as stamped")
