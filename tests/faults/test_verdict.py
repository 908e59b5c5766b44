"""The verdict passes if and only if lake and ledger agree with the log."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from lab.demo.compare import Comparison
from tests.faults.schedule import Kind, Track
from tests.faults.verdict import Ledger, Verdict, render, said
from tests.fleet.lake.test_ledger import batch, fill, told

GOOD = Verdict(
    seed=7,
    minutes=1.0,
    happened=Counter(
        {(Track.AGENT, Kind.KILL): 3, (Track.VEHICLE_ROAD, Kind.CUT): 2, (Track.AGENT, Kind.SMALL_QUOTA): 1}
    ),
    comparison=Comparison(expected=100, in_lake=90, missing=10, duplicates=0, differing=0, examples=("an example",)),
    ledger=Ledger({"evicted_quota": 7, "memory_full": 3}, 0),
    no_disk=None,
    said=Counter(),
    seconds=61.0,
)


def test_what_is_missing_and_in_the_ledger_passes() -> None:
    found = GOOD.as_dict()
    assert GOOD.passed
    assert found["kills"] == {"agent": 3, "broker": 0, "receiver": 0}
    assert (found["link_faults"], found["disk_faults"], found["clock_jumps"]) == (2, 1, 0)
    assert "PASSED" in render(GOOD)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (replace(GOOD, ledger=Ledger({"evicted_quota": 9}, 0)), "lost_unaccounted"),
        (replace(GOOD, ledger=Ledger({"evicted_quota": 11}, 0)), "lost_in_words_only"),
        (replace(GOOD, ledger=Ledger({"evicted_quota": 10}, 1)), "unexplained_batches"),
        (replace(GOOD, comparison=replace(GOOD.comparison, duplicates=1)), "duplicates"),
        (replace(GOOD, comparison=replace(GOOD.comparison, differing=1)), "differing"),
    ],
)
def test_one_sample_that_is_not_as_it_must_be_fails_and_says_how_to_repeat_it(wrong: Verdict, named: str) -> None:
    assert wrong.as_dict()[named] == 1
    assert not wrong.passed
    assert "make faults SEED=7 MINUTES=1" in render(wrong)


def test_a_loss_that_was_told_twice_counts_once(tmp_path: Path) -> None:
    lake, full = str(tmp_path / "lake"), Loss(Reason.MEMORY_FULL, samples=40)
    fill(lake, batch(1, told(full)), batch(2, told(full, Loss(Reason.MEMORY_FULL, samples=2))))
    assert Ledger.read(lake) == Ledger({"memory_full": 42}, 0)


def test_an_empty_lake_fails() -> None:
    empty = Comparison(expected=0, in_lake=0, missing=0, duplicates=0, differing=0, examples=())
    assert not replace(GOOD, comparison=empty, ledger=Ledger({}, 0)).passed


def test_what_programs_said_is_counted_and_lines_that_a_kill_cut_are_not(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text('{"event": "link_lost"}\n{"event": "link_lost"}\nTraceback\n{"event": "li')
    assert said(log) == {"link_lost": 2}
