"""Run a short form of `python -m tests.conditions`, and every triple that once differed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conditions.planted import PLANTED
from tests.conditions.shrink import shrink
from tests.conditions.triples import Triple, play, random_triple

FAILURES = sorted((Path(__file__).parent / "failures").glob("*.json"))


@pytest.mark.timeout(300)
def test_three_hundred_random_triples_agree_with_the_slow_evaluator(tmp_path: Path) -> None:
    out = tmp_path / "conditions.json"
    command = [sys.executable, "-m", "tests.conditions", "--triples", "300", "--seed", "7", "--jobs", "1", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert (report["triples"], report["seed"], report["differ"]) == (300, 7, 0)
    assert report["refused"] > 5
    assert report["with_triggers"] > 60
    assert report["samples"] > 1_000


@pytest.mark.parametrize("path", FAILURES, ids=lambda path: path.stem)
def test_a_triple_that_differed_once_does_not_differ_again(path: Path) -> None:
    assert play(Triple.from_json(path.read_text())).difference is None


@pytest.mark.timeout(600)
def test_every_planted_fault_is_found() -> None:
    """The comparison could be blind, so faults are planted in the slow evaluator, and each must differ soon."""
    hidden = set(PLANTED)
    for number in range(3_000):
        triple = random_triple(1, number)
        hidden -= {fault for fault in hidden if play(triple, fault).difference is not None}
        if not hidden:
            break
    assert {fault.__name__ for fault in hidden} == set()


def test_a_triple_is_the_same_in_every_process_and_survives_its_file() -> None:
    triple = random_triple(1, 5)
    assert Triple.from_json(triple.to_json()).to_json() == random_triple(1, 5).to_json()


def test_a_triple_that_differs_is_made_small() -> None:
    fault = next(fault for fault in PLANTED if fault.__name__ == "RingOneLarger")

    def fails(triple: Triple) -> bool:
        return play(triple, fault).difference is not None

    number = next(number for number in range(100) if fails(random_triple(1, number)))
    small = shrink(random_triple(1, number), fails)
    assert fails(small)
    assert len(small.frames) <= 3
    assert len(small.document["signalsToCollect"]) == 1
