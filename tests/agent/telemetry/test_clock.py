import time
from pathlib import Path

from agent.formats.up.columns import ClockQuality
from agent.telemetry.clock import MachineClock, SteadyClock


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


def test_a_steady_clock_goes_on_where_it_was_in_the_same_boot(tmp_path: Path) -> None:
    file = tmp_path / "steady-clock"
    assert abs(SteadyClock(file)() - time.time()) < 1.0
    boot_id, offset_s = file.read_text().split(" ")
    file.write_text(f"{boot_id} {float(offset_s) - 1e9!r}\n")  # the wall clock was set later
    assert abs(SteadyClock(file)() - time.time() + 1e9) < 1.0


def test_a_steady_clock_begins_anew_with_another_boot_or_without_its_file(tmp_path: Path) -> None:
    file = tmp_path / "steady-clock"
    boot_id = MachineClock().read().boot_id
    for content in ("another-boot 5.0\n", "", "nonsense", f"{boot_id} nan\n", f"{boot_id} inf\n"):
        file.write_text(content)
        assert abs(SteadyClock(file)() - time.time()) < 1.0
    assert abs(SteadyClock(tmp_path / "missing" / "steady-clock")() - time.time()) < 1.0
