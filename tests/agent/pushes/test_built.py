"""The time of the build is the lower bound for a clock that was never set."""

import os
import time
from pathlib import Path

import pytest

from agent.pushes.built import STAMP, built_at_s
from agent.pushes.pushes import BUILT_AT_S


def test_the_time_that_the_build_wrote_counts(tmp_path: Path) -> None:
    (tmp_path / STAMP).write_text("1700000000\n")
    assert built_at_s(tmp_path) == 1_700_000_000


@pytest.mark.parametrize("stamp", [None, "", "soon", "\0\0\0"])
def test_without_a_readable_stamp_the_newest_source_file_counts(tmp_path: Path, stamp: str | None) -> None:
    if stamp is not None:
        (tmp_path / STAMP).write_text(stamp)
    for name, time_s in (("old.py", 1_600_000_000), ("new.py", 1_650_000_000), ("other.txt", 1_690_000_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time_s, time_s))
    assert built_at_s(tmp_path) == 1_650_000_000


def test_with_nothing_to_read_the_agent_starts_all_the_same(tmp_path: Path) -> None:
    assert built_at_s(tmp_path / "missing") == 0


def test_this_software_was_built_in_the_past() -> None:
    assert 1_700_000_000 < BUILT_AT_S <= time.time()
