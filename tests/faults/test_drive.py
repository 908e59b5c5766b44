"""The log of the campaign has real frames in the order of each bus, for as long as requested."""

from pathlib import Path

import pytest

from agent.sources.replay import read_blocks
from can_dbc.frames import concatenate
from tests import shared_data
from tests.faults import drive

pytestmark = pytest.mark.shared


def test_captures_are_looped_side_by_side_for_the_time_asked_for(tmp_path: Path) -> None:
    shared_data.require()
    log = tmp_path / "drive.log"
    count = drive.write_log(log, 60.0, start_s=1_000_000.0)
    frames = concatenate(list(read_blocks(log, channels=["can0", "can1"])))
    assert len(frames) == count
    assert frames.t_ns.min() >= 1_000_000 * 10**9
    assert frames.t_ns.max() < 1_000_060 * 10**9
    assert frames.t_ns.max() > 1_000_059 * 10**9
    again = drive.write_log(log, 30.0, start_s=1_000_000.0)
    shorter = concatenate(list(read_blocks(log, channels=["can0", "can1"])))
    assert 0.4 < again / count < 0.6
    assert shorter.data[:1_000].tobytes() == frames.data[:1_000].tobytes()
