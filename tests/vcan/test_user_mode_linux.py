"""Runs the other tests of this folder inside User Mode Linux if this machine has no vcan, and reports their results.

Each file of tests runs in a machine of its own, and two machines run at once: such a machine has one processor.
"""

import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import can_interfaces, user_mode_linux

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 3_000  # twice the time that a busy machine needed for all files, one after the other
AT_ONCE = 2
LONGEST = ("test_lake.py", "test_kill.py", "test_capture.py")  # They begin first, so that the last ones are short.
PASSED_ON = ("VCAN_SECONDS", "VCAN_KILLS", "VCAN_CUTS", "REQUIRE_VCAN", "REQUIRE_SHARED")
NO_TESTS = 5
"""The exit status of pytest if VCAN_ARGS select no test of a file."""


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_the_tests_of_this_folder_pass_inside_user_mode_linux(capfd: pytest.CaptureFixture[str]) -> None:
    if can_interfaces.available():
        pytest.skip("this machine has vcan, so the tests of this folder run directly")
    if os.environ.get("REQUIRE_VCAN") != "1":
        pytest.skip("User Mode Linux takes minutes; set REQUIRE_VCAN=1 to boot it for these tests, as CI does")
    if (reason := user_mode_linux.unavailable()) is not None:
        pytest.fail(reason)
    files = sorted(
        (file for file in Path(__file__).parent.glob("test_*.py") if file != Path(__file__)),
        key=lambda file: LONGEST.index(file.name) if file.name in LONGEST else len(LONGEST),
    )
    user_mode_linux.compile_sources()
    with ThreadPoolExecutor(AT_ONCE) as machines:
        outcomes = list(machines.map(_run, files))
    summaries = [_read(outcome.files.get("report.xml")) for outcome in outcomes]
    ran = sum(count for _, count, _ in summaries)
    with capfd.disabled():
        print(f"\nUser Mode Linux: {ran} tests")
        for lines, _, _ in summaries:
            print(*lines, sep="\n")
    for file, outcome, (lines, _, failed) in zip(files, outcomes, summaries, strict=True):
        if outcome.status not in {0, NO_TESTS} or failed:
            text = "\n".join(lines)
            pytest.fail(f"{file.name}: {text}\n{outcome.output}\n{outcome.console[-2_000:]}", pytrace=False)
    assert ran


def _run(file: Path) -> user_mode_linux.Outcome:
    arguments = shlex.split(os.environ.get("VCAN_ARGS", ""))
    report = ["--junitxml=/mnt/report.xml", "-o", "junit_family=xunit1", "--tb=short"]
    return user_mode_linux.run(
        [sys.executable, "-m", "pytest", *report, str(file), *arguments],
        folder=ROOT,
        environment={**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, "VCAN_INSIDE": "1"},
        timeout_s=TIMEOUT_S,
        files=["report.xml"],
    )


def _read(report: bytes | None) -> tuple[list[str], int, bool]:
    """Return a line for each test of a JUnit report and its properties, the number of tests, and whether any failed."""
    if report is None:
        return ["there is no report, because the tests did not end"], 0, True
    lines, failed = [], False
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    for case in cases:
        states = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        failed |= bool({"failure", "error"} & set(states))
        lines.append(f"  {' '.join(states) or 'passed':8} {float(case.get('time', 0)):6.1f} s  {case.get('name')}")
        lines += [f"           {p.get('name')}: {p.get('value')}" for p in case.iter("property")]
    return lines, len(cases), failed
