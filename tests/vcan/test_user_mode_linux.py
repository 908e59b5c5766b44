"""Runs the other tests of this folder inside User Mode Linux if this machine has no vcan, and reports their results."""

import os
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import can_interfaces, user_mode_linux

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 3_000  # twice the time that a busy machine needed
PASSED_ON = ("VCAN_SECONDS", "VCAN_KILLS", "VCAN_CUTS", "REQUIRE_VCAN", "REQUIRE_SHARED")


@pytest.mark.timeout(TIMEOUT_S + 30)
def test_the_tests_of_this_folder_pass_inside_user_mode_linux(capfd: pytest.CaptureFixture[str]) -> None:
    if can_interfaces.available():
        pytest.skip("this machine has vcan, so the tests of this folder run directly")
    if os.environ.get("REQUIRE_VCAN") != "1":
        pytest.skip("User Mode Linux takes minutes; set REQUIRE_VCAN=1 to boot it for these tests, as CI does")
    if (reason := user_mode_linux.unavailable()) is not None:
        pytest.fail(reason)
    tests = ["tests/vcan", *shlex.split(os.environ.get("VCAN_ARGS", ""))]
    report = ["--junitxml=/mnt/report.xml", "-o", "junit_family=xunit1", "--tb=short"]
    outcome = user_mode_linux.run(
        [sys.executable, "-m", "pytest", *report, *tests],
        folder=ROOT,
        environment={**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, "VCAN_INSIDE": "1"},
        timeout_s=TIMEOUT_S,
        files=["report.xml"],
    )
    summary, failed = _read(outcome.files.get("report.xml"))
    with capfd.disabled():
        print(f"\nUser Mode Linux: {summary}")
    if outcome.status != 0 or failed:
        pytest.fail(f"inside User Mode Linux: {summary}\n{outcome.output}\n{outcome.console[-2_000:]}", pytrace=False)


def _read(report: bytes | None) -> tuple[str, bool]:
    """Return a line for each test of a JUnit report, and whether any test failed."""
    if report is None:
        return "there is no report, because the tests did not end", True
    lines, failed = [], False
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    for case in cases:
        states = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        failed |= bool({"failure", "error"} & set(states))
        if "skipped" not in states or case.get("name") != "test_the_tests_of_this_folder_pass_inside_user_mode_linux":
            lines.append(f"  {' '.join(states) or 'passed':8} {float(case.get('time', 0)):6.1f} s  {case.get('name')}")
            lines += [f"           {p.get('name')}: {p.get('value')}" for p in case.iter("property")]
    return f"{len(lines)} tests\n" + "\n".join(lines), failed or not cases
