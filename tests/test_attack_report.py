"""The report of attacks has each line of the issue, and says of each attack truthfully whether it was held."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = {*map(str, range(1, 22)), "3a", "3b"}

CONFTEST = """
from pathlib import Path
from tests import attack_report
from tests.conftest import attack, pytest_collection_modifyitems, pytest_configure
attack_report.REPORT = Path(__file__).with_name("attacks.json")
"""
TESTS = """
import pytest

@pytest.mark.attack("10", "a held attack", how="with two inputs", before="912 MB")
@pytest.mark.parametrize("number", [1, 2])
def test_held(number, attack):
    attack(figure={f"mb_{number}": number}, receipt="refused")

@pytest.mark.attack("9", "a lost attack", how="with two inputs, of which one fails")
@pytest.mark.parametrize("passes", [True, False], ids=["passing", "failing"])
def test_lost(passes):
    assert passes

@pytest.mark.attack("3a", "an attack that was not tried", how="skipped")
def test_skipped():
    pytest.skip("no kernel")
"""


def run_tests(folder: Path, *arguments: str) -> list[dict[str, object]]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_them.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        *arguments,
        str(folder),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    rows: list[dict[str, object]] = json.loads((folder / "attacks.json").read_text())["attacks"]
    return rows


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_attack_is_held_if_all_its_tests_pass_in_whatever_process_they_run(tmp_path: Path, workers: str) -> None:
    lost, held = run_tests(tmp_path, "-n", workers)
    assert (lost["name"], lost["held"], lost["state_changed"]) == ("a lost attack", False, True)
    assert (held["name"], held["held"], held["state_changed"]) == ("a held attack", True, False)
    assert (held["receipt"], held["figure"]) == ("refused", {"before": "912 MB", "mb_1": 1, "mb_2": 2})


def test_rows_of_an_earlier_run_stay_unless_the_attack_is_played_again(tmp_path: Path) -> None:
    run_tests(tmp_path, "-k", "held")
    assert [row["line"] for row in run_tests(tmp_path, "-k", "lost")] == ["9", "10"]
    assert [row["held"] for row in run_tests(tmp_path, "-k", "lost and passing")] == [True, True]


def test_each_line_of_the_issue_is_an_attack() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    in_marks = re.findall(r'pytest\.mark\.attack\(\s*"(\w+)"', text)
    of_vehicles = re.findall(r'^    "\w+": \("(\w+)", "a vehicle ', text, re.MULTILINE)
    assert LINES - {*in_marks, *of_vehicles} == set()
