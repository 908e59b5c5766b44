"""A roll-out goes on, stops and goes back as receipts decide, and survives the end of its process at any write."""

import shutil
from pathlib import Path

import pytest

from agent.errors import Permanent, Transient
from agent.system import durable
from fleet.publishing.publish import Publication, publish
from fleet.rollout.book import Book
from fleet.rollout.judge import Verdict
from fleet.rollout.plan import Phase
from tests.agent.pushes.world import NOW, campaign
from tests.fleet.rollout.rolled import FIRST, NEW, OTHER, Rolled


@pytest.fixture
def rolled(tmp_path: Path) -> Rolled:
    made = Rolled(tmp_path)
    made.publish(FIRST, OTHER)
    return made


def test_each_stage_contains_the_one_before_and_the_others_keep_the_earlier_content(rolled: Rolled) -> None:
    everyone = rolled.all_names()
    reached: set[str] = set()
    rolled.start()
    for share in (0.1, 0.5, 1.0):
        having = rolled.having(NEW)
        assert reached <= having
        assert abs(len(having) / len(everyone) - share) < 0.2
        assert rolled.having(FIRST) == everyone - having
        assert rolled.having(OTHER) == everyone
        reached = having
        rolled.report(everyone)
        rolled.clock_s += 101
        rolled.rollouts.step()
    assert reached == everyone
    assert rolled.stored.phase is Phase.DONE
    assert rolled.having(NEW) == everyone


def test_a_stage_with_too_many_failures_stops_and_goes_back_under_a_higher_version(rolled: Rolled) -> None:
    rolled.start()
    rolled.report(rolled.all_names())
    rolled.clock_s += 101
    rolled.rollouts.step()
    having, version = rolled.having(NEW), rolled.version
    rolled.report(having, failed=[sorted(having)[0]])
    rollout, judgement = rolled.rollouts.step()
    assert judgement is not None
    assert judgement.verdict is Verdict.STOP
    assert (rollout.phase, rollout.published, rollout.percent) == (Phase.STOPPED, True, 0.0)
    assert "unhealthy 1" in rollout.why
    assert (rolled.having(NEW), rolled.having(FIRST)) == (set(), rolled.all_names())
    assert rolled.version == version + 1
    assert rolled.rollouts.step() == (rolled.stored, None)
    assert rolled.version == version + 1


def test_a_vehicle_that_no_stage_has_reached_neither_confirms_nor_fails(rolled: Rolled) -> None:
    rolled.start()
    having = rolled.having(NEW)
    others = rolled.all_names() - having
    rolled.report([], failed=others)
    rolled.clock_s += 101
    rollout, judgement = rolled.rollouts.step()
    assert judgement is not None
    assert judgement.verdict is Verdict.WAIT
    assert (rollout.stages[-1].vehicles, rollout.stages[-1].confirmed) == (len(having), 0)
    rolled.report(having)
    rolled.rollouts.step()
    # A receipt of the first stage's version says nothing about a vehicle that got the document with the second.
    _, counted = rolled.rollouts.show()
    assert [stage.confirmed for stage in counted.stages] == [len(having), 0]
    assert counted.everyone.failed == 0


def test_a_stage_is_held_and_can_be_ended_by_hand(rolled: Rolled) -> None:
    rolled.start()
    rolled.report(rolled.all_names())
    rolled.clock_s += 99
    rolled.rollouts.step()
    assert len(rolled.stored.stages) == 1
    rolled.rollouts.step(hurry=True)
    assert len(rolled.stored.stages) == 2


def test_a_paused_roll_out_begins_no_stage_but_still_stops(rolled: Rolled) -> None:
    rolled.start()
    rolled.rollouts.pause()
    with pytest.raises(Permanent, match="is paused, but this command needs one that is running"):
        rolled.rollouts.pause()
    rolled.report(rolled.all_names())
    rolled.clock_s += 1_000
    rolled.rollouts.step(hurry=True)
    assert len(rolled.stored.stages) == 1
    rolled.rollouts.resume()
    rolled.rollouts.step()
    assert len(rolled.stored.stages) == 2
    rolled.rollouts.pause()
    rolled.report([], failed=rolled.having(NEW))
    rolled.rollouts.step()
    assert (rolled.stored.phase, rolled.having(NEW)) == (Phase.STOPPED, set())


def test_a_finished_roll_out_can_be_taken_back_until_its_document_is_published_again(rolled: Rolled) -> None:
    rolled.start()
    for _ in range(3):
        rolled.rollouts.step(hurry=True)
    assert (rolled.stored.phase, rolled.having(NEW)) == (Phase.DONE, rolled.all_names())
    rolled.rollouts.back()
    assert (rolled.stored.phase, rolled.having(FIRST)) == (Phase.BACK, rolled.all_names())
    rolled.start()
    for _ in range(3):
        rolled.rollouts.step(hurry=True)
    rolled.publish(campaign("drive", 9_000))
    with pytest.raises(Permanent, match="were published again since it ended"):
        rolled.rollouts.back()


def test_a_new_document_is_withdrawn_on_the_way_back(rolled: Rolled) -> None:
    new = campaign("brand-new")
    rolled.start(new)
    assert rolled.having(new)
    rolled.rollouts.back()
    assert rolled.having(new) == set()
    assert rolled.having(FIRST) == rolled.having(OTHER) == rolled.all_names()


def test_an_audience_limits_every_stage_and_the_rest_keep_the_earlier_content(rolled: Rolled) -> None:
    german = {vehicle.vehicle for vehicle in rolled.vehicles if vehicle.market == "DE"}
    rolled.start(audience="market=DE")
    assert rolled.having(NEW) < german
    for _ in range(3):
        rolled.rollouts.step(hurry=True)
    assert (rolled.having(NEW), rolled.having(FIRST)) == (german, rolled.all_names() - german)
    # Afterwards the document may be published for all again, which replaces both contents.
    rolled.publish(campaign("drive", 9_000))
    assert rolled.having(campaign("drive", 9_000)) == rolled.all_names()


def test_a_second_roll_out_and_a_publication_of_its_document_must_wait(rolled: Rolled) -> None:
    rolled.start()
    with pytest.raises(Permanent, match="Let it end, or use `fleet rollout back`"):
        rolled.start(campaign("third"))
    with pytest.raises(Permanent, match=r"staged roll-out is publishing the document campaigns/drive\.json"):
        rolled.publish(campaign("drive", 9_000))
    with pytest.raises(Permanent, match="staged roll-out is publishing"):
        publish(rolled.folder, Publication(remove=[("campaign", "drive")], staged=("campaigns/drive.json",)), now=NOW)
    having = rolled.having(NEW)
    rolled.publish(campaign("other", 7_000))
    assert rolled.having(NEW) == having
    assert rolled.having(FIRST) == rolled.all_names() - having


def test_what_cannot_be_rolled_out_is_refused_before_anything_is_published(rolled: Rolled) -> None:
    version = rolled.version
    with pytest.raises(Permanent, match="published already with this content"):
        rolled.start(FIRST)
    with pytest.raises(Permanent, match="has none of the 60 enrolled vehicles"):
        rolled.start(audience="market=US")
    with pytest.raises(Permanent, match="the stages give the share"):
        rolled.start(audience="percent=10")
    with pytest.raises(Permanent, match=r"drive\.json"):
        rolled.start(NEW.replace(b"periodMs", b"period"))
    assert (rolled.version, Book(rolled.folder).read()) == (version, None)
    with pytest.raises(Permanent, match="fleet rollout start"):
        rolled.rollouts.step()


class Cut(Exception):
    """Raised in place of a write: the process ends here."""


class CuttingDisk(durable.Disk):
    """Ends the process at the write number `left`, either before the write or before the rename that follows it."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write_synced(self, path: Path, content: bytes, mode: int) -> None:
        self._count()
        super().write_synced(path, content, mode)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut


def test_a_process_that_ends_at_any_write_is_made_up_for_by_the_next_step(tmp_path: Path) -> None:
    origin = Rolled(tmp_path / "origin", vehicles=6)
    origin.publish(FIRST)
    origin.start(stages=(50.0, 100.0))
    assert origin.having(NEW)
    origin.report(origin.all_names())
    origin.clock_s += 101
    cuts = 0
    for failing in (False, True):
        if failing:
            origin.report([], failed=origin.having(NEW))
        for number in range(40):
            saved = shutil.copytree(origin.folder.root, tmp_path / "saved")
            done = False
            try:
                with durable.on(CuttingDisk(number)):
                    origin.rollouts.step()
                done = True
            except Cut:
                cuts += 1
            before = origin.having(NEW)
            assert before | origin.having(FIRST) == origin.all_names()  # every vehicle always has one content
            rollout, _ = origin.rollouts.step()
            if not rollout.published or (not failing and len(rollout.stages) == 1):
                rollout, _ = origin.rollouts.step()
            assert rollout.published
            assert (rollout.phase, len(rollout.stages)) == ((Phase.STOPPED, 1) if failing else (Phase.RUNNING, 2))
            new = origin.having(NEW)
            assert new == set() if failing else before <= new
            shutil.rmtree(origin.folder.root)
            shutil.move(saved, origin.folder.root)
            if done:
                break
        assert done
    assert cuts > 10


def test_two_processes_never_change_a_roll_out_at_once(rolled: Rolled) -> None:
    rolled.start()
    with Book(rolled.folder).locked(), pytest.raises(Transient, match="Another `fleet rollout`"):
        rolled.rollouts.step()


def test_a_damaged_record_is_named(rolled: Rolled) -> None:
    rolled.start()
    (rolled.folder.rollouts / "current.json").write_text("{")
    with pytest.raises(Permanent, match=r"current\.json cannot be read"):
        rolled.rollouts.step()
