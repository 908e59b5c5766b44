"""The recorded captures and databases beside the checkout (../shared/data), for tests marked `shared`.

Where they are absent a test is skipped with the reason; REQUIRE_SHARED=1 makes that a failure.
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
    """The data folder; skips the calling test (or module) where there is none."""
    if not DATA.is_dir():
        reason = f"no recorded captures in {DATA}"
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
    return DATA


def captures() -> list[Capture]:
    """Every capture that captures.toml pairs with databases; none where the data is absent."""
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
    """Every open DBC file; none where the data is absent."""
    return sorted(DBC.rglob("*.dbc"))
