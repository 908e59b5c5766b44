"""Provides the recorder of attacks, which writes `build/attacks.json` at the end of a run."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conftest import fleet

__all__ = ["fleet"]

REPORT = Path(__file__).parents[2] / "build" / "attacks.json"
Record = Callable[..., None]


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Record an attack.  If the test fails, the attack was not held, and the record says so."""
    found: dict[str, Any] = {"name": request.node.name, "held": False, "how": "", "receipt": "", "state_changed": True}

    def record(**fields: object) -> None:
        found.update(fields)

    yield record
    write(found)


def write(found: dict[str, Any]) -> None:
    """Add an attack to the report, in place of an earlier record of the same name."""
    REPORT.parent.mkdir(exist_ok=True)
    try:
        attacks = json.loads(REPORT.read_text())["attacks"]
    except (OSError, ValueError, KeyError):
        attacks = []
    attacks = [each for each in attacks if each["name"] != found["name"]] + [found]
    part = REPORT.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"attacks": sorted(attacks, key=lambda each: str(each["name"]))}, indent=2))
    part.replace(REPORT)
