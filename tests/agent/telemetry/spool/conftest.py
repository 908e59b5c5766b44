"""The spool that most tests of this folder use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.telemetry.spool.rig import Rig
from tests.agent.telemetry.spool.store import Store


@pytest.fixture
def disk(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


@pytest.fixture
def spool(disk: Rig) -> Iterator[Store]:
    spool = disk.open()
    yield spool
    spool.close()
