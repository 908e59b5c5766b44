"""The verdict passes if and only if lake and ledger agree with the log."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from lab.demo.compare import Comparison
from tests.faults.restored import Aftermath
from tests.faults.schedule import Kind, Restored, Track
from tests.faults.verdict import Ledger, Verdict, render, said
from tests.fleet.lake.test_ledger import batch, fill, told
from tests.fleet.vehicles import T0_US

GOOD = Verdict(
    seed=7,
    minutes=1.0,
    happened=Counter(
        {(Track.AGENT, Kind.KILL): 3, (Track.VEHICLE_ROAD, Kind.CUT): 2, (Track.AGENT, Kind.SMALL_QUOTA): 1}
    ),
    comparison=Comparison(expected=100, in_lake=90, missing=10, duplicates=0, differing=0, examples=("an example",)),
    ledger=Ledger({"evicted_quota": 7, "memory_full": 3}, 0),
    aftermath=Aftermath(Counter({Restored.LAKE: 1}), repeated=2, twice=4, gone=3),
    hostile_messages=5,
    no_disk=None,
    said=Counter(),
    seconds=61.0,
    frames_written=50,
    frames_read=50,
)


def test_what_is_missing_and_in_the_ledger_passes() -> None:
    found = GOOD.as_dict()
    assert GOOD.passed
    assert found["kills"] == {"agent": 3, "broker": 0, "receiver": 0}
    assert (found["link_faults"], found["disk_faults"], found["clock_jumps"]) == (2, 1, 0)
    assert found["restored"] == {"vehicle": 0, "inbox": 0, "lake": 1, "vehicle_and_inbox": 0}
    assert "PASSED" in render(GOOD)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (replace(GOOD, ledger=Ledger({"evicted_quota": 9}, 0)), "lost_unaccounted"),
        (replace(GOOD, ledger=Ledger({"evicted_quota": 11}, 0)), "lost_in_words_only"),
        (replace(GOOD, ledger=Ledger({"evicted_quota": 10}, 1)), "unexplained_batches"),
        (replace(GOOD, frames_read=49), "frames_not_read"),
        (replace(GOOD, comparison=replace(GOOD.comparison, duplicates=1)), "duplicates"),
        (replace(GOOD, comparison=replace(GOOD.comparison, differing=1)), "differing"),
        (replace(GOOD, aftermath=replace(GOOD.aftermath, repeated_wrong=1)), "repeated_wrong"),
        (replace(GOOD, aftermath=replace(GOOD.aftermath, twice_unlisted=1)), "twice_unlisted"),
        (replace(GOOD, aftermath=replace(GOOD.aftermath, gone_unnamed=1)), "gone_unnamed"),
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


def test_losses_of_a_restored_vehicle_that_have_the_ids_of_earlier_losses_count_too(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    one, other = (Loss(Reason.MEMORY_FULL, samples=samples) for samples in (40, 2))
    fill(lake, batch(1, told(one, first_id=1)), batch(2, told(other, first_id=1)))
    assert Ledger.read(lake) == Ledger({"memory_full": 42}, 0)


@pytest.mark.parametrize(("seconds", "lost"), [(0, {}), (60, {"evicted_quota": 20})])
def test_a_stored_batch_is_the_lost_one_only_if_it_has_its_times(
    tmp_path: Path, seconds: int, lost: dict[str, int]
) -> None:
    first_us = T0_US + (1 + seconds) * 1_000_000
    evicted = Loss(
        Reason.EVICTED_QUOTA,
        batches=1,
        samples=20,
        first_seq=1,
        last_seq=1,
        first_t_us=first_us,
        last_t_us=first_us + 90_000,
    )
    fill(str(tmp_path / "lake"), batch(1), batch(2, told(evicted)))
    assert Ledger.read(str(tmp_path / "lake")) == Ledger(lost, 0)


def test_what_the_receiver_did_not_say_about_a_restored_disk_fails() -> None:
    verdict = replace(GOOD, aftermath=replace(GOOD.aftermath, unsaid=("The inbox was put back.",)))
    assert not verdict.passed
    assert "The inbox was put back." in render(verdict)


def test_an_empty_lake_fails() -> None:
    empty = Comparison(expected=0, in_lake=0, missing=0, duplicates=0, differing=0, examples=())
    assert not replace(GOOD, comparison=empty, ledger=Ledger({}, 0)).passed


def test_what_programs_said_is_counted_and_lines_that_a_kill_cut_are_not(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text('{"event": "link_lost"}\n{"event": "link_lost"}\nTraceback\n{"event": "li')
    assert said(log) == {"link_lost": 2}
