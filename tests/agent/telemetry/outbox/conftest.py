"""The outbox that most tests of this folder use."""

from pathlib import Path

import pytest

from tests.agent.telemetry.spool.depot import Depot


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path)
