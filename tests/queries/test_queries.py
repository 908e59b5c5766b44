"""Every question of `fleet query` ends with status 0 and the right rows, as a process of its own."""

from pathlib import Path

import pytest

from agent.formats.topics import Lane
from agent.formats.up.columns import Event
from agent.formats.up.seal import Header
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.rows import rows_of
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import Lake
from tests.fleet.vehicles import EPOCH, T0_US, make_fleet, make_window
from tests.queries.ask import End, ask
from tests.queries.questions import Question, questions_about

pytestmark = pytest.mark.timeout(300)  # some 30 processes

VEHICLES = ("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001")
FILES = 8
SAMPLES = 5_000  # of each signal and file, so that Arrow still reads ahead when a question with LIMIT is answered


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_fleet(tmp_path_factory.mktemp("queries") / "fleet")
    lake = Lake(str(folder.lake))
    for seq in range(1, FILES + 1):
        header = Header(VEHICLES[seq % 2], EPOCH, seq, Lane.LIVE if seq % 3 else Lane.BACKLOG, "key", "X25519", T0_US)
        window = make_window(seq, samples=SAMPLES)
        lost = {"reason": "evicted", "epoch": EPOCH, "id": seq, "first_seq": 50 + seq, "last_seq": 50 + seq}
        used = {"toggle": "page", "variant": "on" if seq % 3 else "off", "evaluations": seq, "seconds": 3600}
        more = (Event(T0_US + seq, "loss", {**lost, "batches": 1}), Event(T0_US + seq, "toggle_evaluations", used))
        object.__setattr__(window, "events", (*window.events, *more))
        rows = rows_of(OpenedBatch(header, window, 100, T0_US, seq.to_bytes(16, "big")))
        for name in SCHEMAS:
            lake.append(name, "test", seq, [rows])
    return folder.root


@pytest.fixture(scope="module")
def questions(fleet: Path) -> list[Question]:
    return questions_about(fleet / "lake")


def failed(end: End) -> bool:
    return not (end.status == 0 and end.right)


def test_every_question_ends_with_the_right_rows(fleet: Path, questions: list[Question]) -> None:
    assert len(questions) >= 18
    assert [end for end in (ask(fleet, question) for question in questions) if failed(end)] == []


def test_a_question_with_a_limit_ends_each_time(fleet: Path, questions: list[Question]) -> None:
    (question,) = [each for each in questions if str(each).endswith("samples limit 3")]
    assert [end for end in (ask(fleet, question) for _ in range(4)) if failed(end)] == []


def test_a_wrong_answer_is_noticed(fleet: Path, questions: list[Question]) -> None:
    for question in questions:
        assert not question.is_right([]), question
    wrong = Question(("sql", "select 1 as n"), lambda found: found == [{"n": 2}])
    assert failed(ask(fleet, wrong))
