"""Commands end without a traceback and with a status that says what happened, even if output cannot be written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.system.command_line import ended, printable
from tests.agent.car import ROOT


def run(work: Callable[[], int]) -> tuple[int, list[str]]:
    complaints: list[str] = []
    return ended(work, lambda problem: complaints.append(str(problem))), complaints


def fail(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def test_the_status_of_the_work_is_that_of_the_command() -> None:
    assert run(lambda: 7) == (7, [])


@pytest.mark.parametrize(
    ("error", "status", "complaint"),
    [
        (Permanent("a.toml: key: remedy"), 1, "a.toml: key: remedy"),
        (FileNotFoundError(2, "No such file", "a.log"), 1, "a.log: No such file"),
        (OSError("odd"), 1, "the system: odd"),
        (
            UnicodeEncodeError("utf-8", "log\udce9.log", 3, 4, "surrogates not allowed"),
            1,
            "'log\\udce9.log' cannot be written as utf-8: use names in UTF-8",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_went_wrong_is_told_and_is_the_status(error: BaseException, status: int, complaint: str) -> None:
    assert run(fail(error)) == (status, [complaint])


def test_an_error_of_the_programmer_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(fail(ZeroDivisionError()))


def test_a_terminal_gets_no_control_characters() -> None:
    assert printable("a\x1b[2Jb\tc") == "a\\x1b[2Jb\\tc"


PROGRAMS = pytest.mark.parametrize(
    "arguments", [("agent", "version"), ("agent", "--help"), ("fleet", "init", "--help")]
)


@PROGRAMS
def test_a_reader_that_has_gone_is_no_error(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = start(arguments, writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_without_room_is_told() -> None:
    done = start(("agent", "version"), os.open("/dev/full", os.O_WRONLY))
    assert (done.returncode, done.stderr) == (1, "headunit-agent: the system: No space left on device\n")


def start(arguments: tuple[str, ...], output: int) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            check=False,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            timeout=30,
        )
    finally:
        os.close(output)


def test_an_interrupt_ends_a_command_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    log, out = tmp_path / "long.log", tmp_path / "out.csv"
    log.write_text("".join(f"({second}.0) can0 123#00\n" for second in range(1, 500_000)))
    database = ROOT / "can_dbc" / "dbc" / "demo_body.dbc"
    arguments = ["env", "--default-signal=INT", sys.executable, "-m", "agent", "decode"]
    arguments += ["--dbc", str(database), "--log", str(log), "--out", str(out)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT) as decoding:
        while decoding.poll() is None and len(list(tmp_path.iterdir())) == 1:
            time.sleep(0.01)
        decoding.send_signal(signal.SIGINT)
        assert decoding.wait(20) == 130
        assert decoding.stderr is not None
        assert decoding.stderr.read() == "headunit-agent: interrupted\n"
    assert list(tmp_path.iterdir()) == [log]
