"""Writes `build/attacks.json`: one row for each attack that tests are marked with.

A test is marked with `@pytest.mark.attack(line, name, how=..., before=..., receipt=...)`.  `line` is the number of the
promise in the issue "Promises that hold", or PUSHES for the attacks on pushes.  `before` is what the attack did before
the promise was kept.  An attack is held if all tests with its name passed in their latest run.  A test tells more of it
through the fixture `attack`.  Rows of other runs stay, and processes of pytest-xdist send theirs to the process that
writes the file.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPORT = Path(__file__).parents[1] / "build" / "attacks.json"
PROPERTY = "attack"
PUSHES = "pushes"
"""The line of the attacks on pushes; they come after the promises."""
RecordAttack = Callable[..., None]


def natural(line: str) -> tuple[int, str]:
    """Return a key that sorts 3 before 3a, 3b before 4, and PUSHES last."""
    if line == PUSHES:
        return sys.maxsize, ""
    found = re.fullmatch(r"(\d+)([a-z]?)", line)
    if found is None:
        raise ValueError(f"{line!r} is no line of the issue; write a number and at most one letter, as in 3a")
    return int(found[1]), found[2]


class AttackReport:
    """Collects the rows of one run of pytest, and adds them to the report at its end."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test was marked with and what it told.  A test that was skipped has tried nothing."""
        if report.skipped or not (report.when == "call" or report.failed):
            return
        for key, told in report.user_properties:
            if key == PROPERTY and isinstance(told, dict):
                self._add(told, held=not report.failed)

    def _add(self, told: dict[str, Any], *, held: bool) -> None:
        row = self._rows.setdefault(told["name"], told | {"held": True, "state_changed": False, "figure": {}})
        row["held"] = row["held"] and held
        row["state_changed"] = row["state_changed"] or told["state_changed"] or not held
        row["receipt"] = told["receipt"] or row["receipt"]
        row["figure"] = row["figure"] | told["figure"]

    def pytest_sessionfinish(self) -> None:
        """Write the report; rows of this run replace those with the same names."""
        if not self._rows:
            return
        try:
            before = {row["name"]: row for row in json.loads(REPORT.read_text())["attacks"]}
        except (OSError, ValueError, KeyError, TypeError):
            before = {}
        rows = sorted((before | self._rows).values(), key=lambda row: (natural(row["line"]), row["name"]))
        REPORT.parent.mkdir(exist_ok=True)
        part = REPORT.with_suffix(".part")
        part.write_text(json.dumps({"attacks": rows}, indent=2, ensure_ascii=False) + "\n")
        part.replace(REPORT)


def marked(item: pytest.Item) -> dict[str, Any] | None:
    """Return what the mark of a test says, or nothing if it plays no attack."""
    mark = item.get_closest_marker("attack")
    return None if mark is None else described(*mark.args, **mark.kwargs)


def described(line: str, name: str, *, how: str, before: object = None, receipt: str = "") -> dict[str, Any]:
    """Return the beginning of a row."""
    natural(line)
    figure = {} if before is None else {"before": before}
    return {"line": line, "name": name, "how": how, "receipt": receipt, "state_changed": False, "figure": figure}
