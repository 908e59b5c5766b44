"""Test the file that flagd's in-process providers watch."""

import json
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.serve.flagd_file import FlagdFile

DEFINITION = b'{"flags":{"f":{"state":"ENABLED","variants":{"on":true}}}}'


def test_the_file_holds_the_definition_in_force(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path)
    file.write(DEFINITION)
    assert file.path.read_bytes() == DEFINITION
    file.write(None)
    assert json.loads(file.path.read_bytes()) == {"flags": {}}
    assert list(tmp_path.iterdir()) == [file.path]


def test_a_runtime_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path / "missing")
    with pytest.raises(Transient, match="missing"):
        file.write(DEFINITION)
    file.remove()


def test_a_removed_file_is_written_anew(tmp_path: Path) -> None:
    file = FlagdFile(tmp_path)
    file.write(DEFINITION)
    file.remove()
    assert not file.path.exists()
    file.write(DEFINITION)
    assert file.path.exists()
