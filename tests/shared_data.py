"""Finds the recorded captures and databases beside the checkout (../shared/data), for tests marked `shared`.

Without the data a test is skipped with the reason.  With REQUIRE_SHARED=1 it fails.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DBC = DATA / "open" / "dbc"


@dataclass(frozen=True)
class Capture:
    path: Path
    frames: int
    known: int | None
    match: str
    databases: dict[str, list[Path]]

    def __str__(self) -> str:
        return self.path.name.split(".", maxsplit=1)[0]


def require() -> Path:
    """Return the folder of the data.  Without the data the calling test (or module) is skipped or fails."""
    if not DATA.is_dir():
        reason = f"there are no recorded captures in {DATA}"
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
    return DATA


def captures() -> list[Capture]:
    """Return the captures that captures.toml pairs with databases.  Without the data the list is empty."""
    if not DATA.is_dir():
        return []
    table = tomllib.loads((DATA / "captures.toml").read_text())
    return [
        Capture(
            DATA / entry["file"],
            entry["frames"],
            entry.get("known"),
            entry.get("match", "exact"),
            {bus: [DATA / path for path in paths] for bus, paths in entry["dbc"].items()},
        )
        for entry in table["capture"]
    ]


def databases() -> list[Path]:
    """Return all open DBC files.  Without the data the list is empty."""
    return sorted(DBC.rglob("*.dbc"))
