"""What rings captured before a run began, or between two runs, is named in the ledger if a cut takes it."""

from pathlib import Path

import pytest

from agent.system.durable import Disk
from agent.telemetry.spool.listening import Listening, ListeningNote
from agent.telemetry.spool.runs import LATE_US
from tests.agent.telemetry.spool.rig import Rig
from tests.agent.telemetry.spool.test_checkpoints import begin, checkpoint, named


@pytest.fixture
def disk(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


def note(spool: Path, since_us: int, **rings: str) -> None:
    ListeningNote(spool, Disk()).add(Listening(bus, ring, since_us) for bus, ring in rings.items())


def test_a_cut_between_the_opening_of_the_rings_and_the_run_is_named(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, 5, can0="ring 1")
    spool.end_run()
    spool.close()
    note(disk.folder, LATE_US + 50, can0="ring 2", can1="ring 3")
    again = disk.open()
    begin(again, LATE_US + 70, can0="ring 4", can1="ring 3")  # can1's ring was kept
    assert named(again) == [("", "can0", 50, LATE_US + 70)]
    again.end_run()
    begin(again, LATE_US + 90, can0="ring 5", can1="ring 6")
    assert named(again) == [("", "can0", 50, LATE_US + 70)]  # the note is gone


def test_a_cut_during_the_first_start_is_named(disk: Rig) -> None:
    note(disk.folder, LATE_US + 50, can0="ring 1")
    note(disk.folder, LATE_US + 60, can0="ring 2")
    spool = disk.open()
    begin(spool, LATE_US + 70, can0="ring 2")  # only the second ring was kept
    assert named(spool) == [("", "can0", 50, LATE_US + 70)]


def test_a_cut_while_the_agent_reloads_is_named_for_the_rings_that_went_on(disk: Rig) -> None:
    spool = disk.open()
    begin(spool, 5, can0="ring 1", can1="ring 2", can2="")
    spool.append(checkpoint(1, last_t_us=40))
    spool.end_run(captured={"can0": "ring 1"}, since_us=LATE_US + 50)
    begin(spool, LATE_US + 60, can0="ring 1", can1="", can2="")
    assert named(spool) == []  # the reload succeeded
    spool.end_run(captured={"can0": "ring 1"}, since_us=LATE_US + 70)
    spool.close()
    again = disk.open()
    begin(again, LATE_US + 90, can0="ring 9")
    assert named(again) == [("", "can0", 70, LATE_US + 90)]
