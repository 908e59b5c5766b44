import time

from agent.formats.up.columns import ClockQuality
from agent.telemetry.clock import MachineClock


def test_wall_and_boot_time_are_of_one_moment() -> None:
    clock = MachineClock()
    before = time.time_ns() // 1_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    reading = clock.read()
    after = time.time_ns() // 1_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    assert before[0] <= reading.wall_us <= after[0]
    assert before[1] <= reading.boottime_us <= after[1]
    assert reading.boot_id == MachineClock().read().boot_id


def test_times_of_a_recording_are_vouched_for_by_no_clock() -> None:
    assert MachineClock(recorded=True).read().quality is ClockQuality.RECORDED
    assert MachineClock().read().quality in (ClockQuality.NETWORK, ClockQuality.UNSYNCHRONISED)
