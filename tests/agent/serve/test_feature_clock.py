"""Test what a vehicle knows about the time, with clocks that are wrong, restarts and reboots."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.formats.down.validity import Moment
from agent.formats.up.columns import Clock, ClockQuality
from agent.serve.feature_clock import STORE_S, FeatureClock

NOW_S = 1_782_892_800
IN_1970_S, IN_2099_S = 0, 4_070_908_800


class Machine:
    """A machine with a clock that can be wrong, switched off, and asked."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "feature_time.json"
        self.boot, self.up_s, self.wall_s, self.quality = "b1", 100.0, float(NOW_S), ClockQuality.UNSYNCHRONISED
        self.signed_s = NOW_S
        self.start()

    def start(self) -> None:
        self.clock = FeatureClock(self.file, self.read, lambda: self.signed_s, 1_700_000_000)

    def read(self) -> Clock:
        return Clock(self.quality, self.boot, round(self.wall_s * 1e6), round(self.up_s * 1e6))

    def run(self, seconds: float, *, step_s: float = STORE_S) -> None:
        while seconds > 0:
            self.up_s += min(step_s, seconds)
            seconds -= step_s
            self.clock.read()

    def reboot(self) -> None:
        self.boot, self.up_s = self.boot + "+", 5.0
        self.start()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_right_clock_that_nobody_has_set_is_possible_but_not_certain(machine: Machine) -> None:
    machine.wall_s += 3600
    assert machine.clock.read() == Moment(NOW_S, NOW_S + 3600, NOW_S)
    machine.quality = ClockQuality.NETWORK
    assert machine.clock.read() == Moment(NOW_S + 3600, NOW_S + 3600, NOW_S)


def test_a_clock_in_1970_is_corrected_by_the_signature_and_the_time_since(machine: Machine) -> None:
    machine.wall_s = IN_1970_S
    assert machine.clock.read() == Moment(NOW_S, NOW_S, NOW_S)
    machine.run(3600)
    assert machine.clock.read() == Moment(NOW_S + 3600, NOW_S + 3600, NOW_S)


def test_a_clock_in_2099_makes_nothing_certain(machine: Machine) -> None:
    machine.wall_s = IN_2099_S
    assert machine.clock.read() == Moment(NOW_S, IN_2099_S, NOW_S)
    machine.wall_s = NOW_S  # a wrong clock leaves no trace when it is right again
    assert machine.clock.read() == Moment(NOW_S, NOW_S, NOW_S)


def test_the_time_of_a_restart_counts_within_a_boot(machine: Machine) -> None:
    machine.wall_s = IN_1970_S
    machine.clock.read()
    machine.up_s += 50
    machine.start()
    assert machine.clock.read().certain_s == NOW_S + 50


def test_a_power_cut_forgets_at_most_ten_minutes(machine: Machine) -> None:
    machine.wall_s = IN_1970_S
    machine.clock.read()
    machine.run(10_000, step_s=1)
    machine.reboot()
    assert NOW_S + 10_000 - STORE_S <= machine.clock.read().certain_s <= NOW_S + 10_000
    machine.run(10_000, step_s=1)
    machine.reboot()
    assert machine.clock.read().certain_s >= NOW_S + 20_000 - 2 * STORE_S


def test_a_later_signature_moves_the_time_on_and_an_earlier_one_does_not_move_it_back(machine: Machine) -> None:
    machine.wall_s = IN_1970_S
    machine.clock.read()
    machine.signed_s += 1_000
    assert machine.clock.read() == Moment(NOW_S + 1_000, NOW_S + 1_000, NOW_S + 1_000)
    machine.signed_s = 0  # the push store was damaged
    assert machine.clock.read() == Moment(NOW_S + 1_000, NOW_S + 1_000, 0)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"certain_s": "x"}'])
def test_a_damaged_file_is_written_anew(machine: Machine, content: bytes) -> None:
    machine.file.write_bytes(content)
    machine.start()
    assert machine.clock.read().certain_s == NOW_S
    assert msgspec.json.decode(machine.file.read_bytes())["certain_s"] == NOW_S


def test_the_flash_is_written_every_ten_minutes_only(machine: Machine) -> None:
    machine.clock.read()
    written: Callable[[], int] = lambda: machine.file.stat().st_ino  # noqa: E731  (each write is a new file)
    first = written()
    machine.run(STORE_S - 1, step_s=1)
    assert written() == first
    machine.run(2, step_s=1)
    assert written() != first
