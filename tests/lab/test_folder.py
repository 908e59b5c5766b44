"""A folder is emptied before a run only if an earlier run has made it."""

from pathlib import Path

import pytest

from agent.errors import Permanent
from lab.folder import fresh


def test_what_an_earlier_run_left_goes(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "new" / "demo")
    (folder / "lake").mkdir()
    (folder / "lake" / "part").touch()
    assert not (fresh(folder) / "lake").exists()


def test_what_is_anybody_elses_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(Permanent, match=r"holds files that no earlier run has made\. Choose another --out"):
        fresh(tmp_path)
    with pytest.raises(Permanent, match=r"thesis\.txt is a file, not a folder\. Choose another --out"):
        fresh(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert list(fresh(tmp_path).iterdir()) != []
