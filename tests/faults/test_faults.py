"""Play a minute of faults and one restored disk.  `make faults` plays a quarter of an hour."""

import os
import random
from pathlib import Path

import pytest

from tests import shared_data
from tests.faults.campaign import play
from tests.faults.schedule import Track
from tests.faults.verdict import render

pytestmark = [pytest.mark.integration, pytest.mark.shared]


@pytest.mark.timeout(420)
def test_in_a_minute_of_faults_nothing_is_lost_without_account_and_nothing_is_double(tmp_path: Path) -> None:
    shared_data.require()
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    verdict = play(seed, 1.0, tmp_path / "faults")
    assert verdict.passed, render(verdict)
    kills = verdict.as_dict()["kills"]
    assert all(kills[track] for track in (Track.AGENT, Track.BROKER, Track.RECEIVER)), kills
    assert sum(verdict.as_dict()["restored"].values()) == 1
