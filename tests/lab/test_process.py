"""A program of the lab starts, ends and starts again, on a machine that is a parameter."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent.errors import Permanent
from lab.machine import ClockedMachine, Machine, ThisMachine
from lab.process import Process

TELL_TIME = "import json, time\nfor _ in range(10_000):\n print(json.dumps({'event': 'time', 's': time.time()}))\n"
DAY_NS = 86_400 * 10**9


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that prints the time ten times a second."""
    (tmp_path / "clock_reader.py").write_text(TELL_TIME + " time.sleep(0.1)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    return "clock_reader"


def started(module: str, tmp_path: Path, machine: Machine) -> Process:
    process = Process("reader", machine.python(module), tmp_path / "reader.log", machine=machine)
    process.start()
    return process


def last_time_s(process: Process) -> float:
    seen = process.said("time")
    process.until(lambda: process.said("time") > seen + 1, "telling the time")
    return float(process.lines("time")[-1]["s"])


def test_a_program_is_killed_and_started_again_with_one_log(module: str, tmp_path: Path) -> None:
    process = started(module, tmp_path, ThisMachine())
    try:
        assert abs(last_time_s(process) - time.time()) < 5
        first, count = process.pid, process.said("time")
        process.kill()
        assert not process.running
        process.start()
        process.until(lambda: process.said("time") > count, "telling the time")
        assert process.pid != first
        assert process.stop() == -signal.SIGTERM
    finally:
        process.kill()


def test_a_machine_with_a_clock_of_its_own_tells_its_own_time(module: str, tmp_path: Path) -> None:
    machine = ClockedMachine(tmp_path / "offset")
    process = started(module, tmp_path, machine)
    try:
        assert abs(last_time_s(process) - time.time()) < 5
        machine.move_clock(DAY_NS)
        assert abs(last_time_s(process) - time.time() - 86_400) < 5
    finally:
        process.kill()


def test_a_program_that_ends_by_itself_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    process = Process("liar", ["sh", "-c", "echo farewell; exit 3"], tmp_path / "log")
    process.start()
    with pytest.raises(Permanent, match=r"The liar ended with status 3\. The end of its log:\nfarewell"):
        process.until(lambda: False, "up")
    assert process.wait() == 3


def test_a_program_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    with Process("idler", ["sleep", "60"], tmp_path / "log").running_now() as process:
        with pytest.raises(Permanent, match="The idler did not reach the state 'done' within 0 s"):
            process.until(lambda: False, "done", 0.1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    assert not process.running


def test_a_program_that_was_never_started_can_be_ended(tmp_path: Path) -> None:
    process = Process("phantom", ["true"], tmp_path / "log")
    assert process.stop() == 0
    process.kill()
    with pytest.raises(Permanent, match="The phantom was not started"):
        process.signal(signal.SIGHUP)
