"""The process that reads an MF4 log is bounded, turns every failure into a ValueError, and leaves no file behind."""

import struct
import subprocess
import sys
import tempfile
import zlib
from itertools import islice
from pathlib import Path

import pytest

from agent.sources import mf4
from agent.sources.mf4 import Mf4Messages
from tests.fuzz import seeds
from tests.fuzz.forked import Forked

REGRESSIONS = Path(__file__).parents[2] / "fuzz" / "regressions" / "mf4"
BOMB_BYTES = 300 * 1024 * 1024


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the folder in which this process and its children put temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def _log(folder, content):
    path = folder / "drive.mf4"
    path.write_bytes(content)
    return path


def _read(path, **options):
    with Mf4Messages(path, **options) as messages:
        return list(messages)


def _saying(program):
    """Return a function that starts a child which runs `program` instead of reading the log."""
    command = [sys.executable, "-c", f"import os, sys; out = sys.stdout.buffer; {program}"]
    return lambda path, folder: subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", range(4))
def test_a_child_forked_off_gives_what_a_child_of_its_own_gives(tmp_path, number):
    path = _log(tmp_path, seeds.log(".mf4")[number])
    own, forked = _read(path), _read(path, start=Forked)
    assert len(own) == (2 if number == 0 else 5)
    assert [str(message) for message in own] == [str(message) for message in forked]


def test_a_crash_in_the_midst_of_a_batch_is_a_crash_and_no_end_of_the_log(tmp_path):
    path = _log(tmp_path, b"")
    crash = "out.write(bytes([0, 0, 1, 0, 1, 2])); out.flush(); os.kill(os.getpid(), 11)"
    with pytest.raises(ValueError, match="its reader crashed with signal 11"):
        _read(path, start=_saying(crash))
    with pytest.raises(ValueError, match="its reader crashed with status 3"):
        _read(path, start=_saying("sys.exit(3)"))


def test_more_data_than_frames_have_is_not_taken(tmp_path):
    with pytest.raises(ValueError, match="more than CAN allows"):
        _read(_log(tmp_path, b""), start=_saying(r"out.write(b'\xff' * 1000)"))


def test_a_log_that_keeps_asammdf_busy_for_ever_ends(tmp_path):
    path = _log(tmp_path, (REGRESSIONS / "endless").read_bytes())
    with pytest.raises(ValueError, match="its reader made no progress"):
        _read(path, start=Forked)


def test_a_log_that_unpacks_to_more_than_the_child_may_take_is_refused(tmp_path, monkeypatch):
    content = seeds.log(".mf4")[1]
    packed = zlib.compress(bytes(BOMB_BYTES), 9)
    bomb = (
        struct.pack("<4sIQQ2sBBIQQ", b"##DZ", 0, 48 + len(packed), 0, b"DT", 0, 0, 0, BOMB_BYTES, len(packed)) + packed
    )
    first, end = (place.to_bytes(8, "little") for place in (content.index(b"##DZ"), len(content)))
    path = _log(tmp_path, content.replace(first, end) + bomb)
    monkeypatch.setattr(mf4, "_SPACE_BYTES", BOMB_BYTES // 2)
    with pytest.raises(ValueError, match="reading it takes more memory than a log of its size should need"):
        _read(path, start=Forked)


@pytest.mark.parametrize("damage", [0, 8, 100])
def test_nothing_of_a_damaged_log_is_left_behind(tmp_path, scratch, damage):
    path = _log(tmp_path, seeds.log(".mf4")[3][: -damage or None][: 4000 if damage == 100 else None])
    for start in ({}, {"start": Forked}):
        try:
            _read(path, **start)
        except ValueError:
            assert damage
        assert list(scratch.iterdir()) == []


def test_nothing_is_left_behind_of_a_log_that_crashes_its_reader_or_is_not_read_to_its_end(tmp_path, scratch):
    with pytest.raises(ValueError, match="crashed with signal 11"):
        _read(_log(tmp_path, (REGRESSIONS / "crash").read_bytes()))
    with Mf4Messages(_log(tmp_path, seeds.log(".mf4")[3])) as messages:
        assert len(list(islice(messages, 1))) == 1
    assert list(scratch.iterdir()) == []
