"""Provides a fleet, one vehicle, the store of its batches and an empty lake as fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import Vehicle, make_fleet, make_vehicle


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one call of `take_in` judge all messages of a test, however slow the machine is."""
    monkeypatch.setattr("fleet.receiving.store.JUDGE_S", 600.0)


@pytest.fixture
def fleet(tmp_path: Path) -> FleetFolder:
    return make_fleet(tmp_path / "fleet")


@pytest.fixture
def vehicle(fleet: FleetFolder, tmp_path: Path) -> Vehicle:
    return make_vehicle(fleet, tmp_path / "vehicle")


@pytest.fixture
def store(fleet: FleetFolder) -> Iterator[Store]:
    opened = open_store(fleet, Share())
    yield opened
    opened.close()


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")
