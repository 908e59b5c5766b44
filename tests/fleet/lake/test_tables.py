"""Appending to the lake when its tables are opened anew every few versions."""

from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.seal import Header
from fleet.lake import tables
from fleet.lake.claims import Fenced
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.query import ask_sql
from fleet.lake.rows import BatchRows, rows_of
from fleet.lake.tables import SCHEMAS, Lake
from tests.fleet.vehicles import EPOCH, T0_US, make_window

APP = "headunit-receiver/test"


def rows(seq: int) -> BatchRows:
    header = Header("00000000-0000-4000-8000-000000000000", EPOCH, seq, Lane.LIVE, "key", "X25519", T0_US)
    return rows_of(OpenedBatch(header, make_window(seq), 100, T0_US, seq.to_bytes(16, "big")))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_REOPEN", 3)


def test_each_commit_is_appended_once_when_tables_are_opened_anew_in_between(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for number in range(1, 9):
        for name in SCHEMAS:
            for _ in range(2):  # the second time, the table has the commit already
                lake.append(name, APP, number, [rows(number)])
    assert lake.landed(APP) == dict.fromkeys(SCHEMAS, 8)
    assert {key.seq for key in lake.known()} == set(range(1, 9))
    assert ask_sql(str(tmp_path), "SELECT count(*), count(DISTINCT seq) FROM batches").rows == ((8, 8),)


def test_a_writer_whose_tables_are_opened_anew_is_fenced_all_the_same(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    claims, _ = lake.claim([0, 1], {})
    for number in range(1, 4):
        lake.append("batches", APP, number, [rows(number)], claims)
    Lake(str(tmp_path)).claim([1], {})
    with pytest.raises(Transient):  # Delta refuses the commit, and the next try finds out why
        lake.append("batches", APP, 4, [rows(4)], claims)
    for number in range(4, 12):
        with pytest.raises(Fenced):
            lake.append("batches", APP, number, [rows(number)], claims)
    assert ask_sql(str(tmp_path), "SELECT max(seq) FROM batches").rows == ((3,),)
