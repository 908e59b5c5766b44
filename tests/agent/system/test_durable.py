import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from agent.system.durable import create_file, write_file


def test_a_file_is_replaced_whole_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_file(path, b"one")
    write_file(path, b"two", mode=0o644)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_the_mode_holds_under_the_umask_of_the_service(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "for-apps", b"", mode=0o644)
        write_file(tmp_path / "private", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "for-apps").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_where_writing_fails_the_old_content_stands_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.mkdir()  # a folder cannot be replaced by a file
    (path / "old").write_bytes(b"old")
    with pytest.raises(OSError, match="irectory"):
        write_file(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["record"]
    assert (path / "old").read_bytes() == b"old"


def test_a_folder_that_is_missing_is_the_callers_to_make(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        write_file(tmp_path / "missing" / "record", b"new")
    assert missing.value.filename == str(tmp_path / "missing" / "record")  # the error does not name the temporary file
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_file(tmp_path / "file" / "record", b"new")


def test_a_file_that_cannot_be_created_whole_leaves_nothing(tmp_path: Path) -> None:
    create_file(tmp_path / "batch", b"content")
    assert (tmp_path / "batch").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "batch").stat().st_mode) == 0o600
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            create_file(tmp_path / "next", b"content")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert [each.name for each in tmp_path.iterdir()] == ["batch"]
