"""Run a short form of `python -m tests.fuzz`, and every input that once failed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.runner import chosen, failure, share_out
from tests.fuzz.targets import TARGETS, Target

REGRESSIONS = sorted(path for path in (Path(__file__).parent / "regressions").glob("*/*") if path.is_file())


def test_a_few_thousand_damaged_inputs_raise_nothing_but_the_readers_own_errors(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "4000", "--seed", "3", "--out", tmp_path / "fuzz.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "fuzz.json").read_text())
    assert report["crashes"] == 0
    assert report["inputs"] == sum(share_out(TARGETS, 4000).values())
    for name in ("dbc", "candump", "asc", "blf", "trc", "gz", "zst", "mf4"):  # some are refused, some are read
        assert 0 < sum(report["targets"][name]["errors"].values()) < report["targets"][name]["inputs"]


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_that_failed_once_does_not_fail_again(path):
    (target,) = chosen([path.parent.name])
    try:
        assert failure(target, path.read_bytes()) is None
    except target.errors as error:
        assert str(error)


def _fails(content: bytes) -> None:
    if content == b"own":
        raise ValueError
    if content == b"hang":
        while True:
            pass
    raise KeyError(content)


def test_a_failure_is_told_from_a_targets_own_error(monkeypatch):
    monkeypatch.setattr("tests.fuzz.runner.LIMIT_S", 0.2)
    target = Target("t", 1.0, lambda _: b"", _fails, (ValueError,))
    assert failure(target, b"x").startswith("KeyError: b'x'; ")
    assert failure(target, b"hang").startswith("Hang: ")
    with pytest.raises(ValueError):
        failure(target, b"own")
