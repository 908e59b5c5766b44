"""Test compaction and retention on real Delta tables."""

import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.formats.up.columns import Event
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from fleet.lake.compact import Work, compact
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.query import ask_sql
from fleet.lake.retention import Retention, retention_of
from fleet.lake.rows import rows_of
from fleet.lake.tables import Lake
from tests.fleet.lake.test_ledger import VEHICLE, batch, told

APP = "headunit-receiver/test/0-15"
DAY_US = 86_400_000_000
TODAY = Work(128_000_000, 0, None, dry_run=False)


def on_day(seq: int, day: int, events: tuple[Event, ...] = ()) -> OpenedBatch:
    """Return a batch that is `day` days later than the usual one."""
    usual = batch(seq, tuple(replace(event, t_us=event.t_us + day * DAY_US) for event in events))
    window = usual.window
    groups = tuple(replace(group, t_us=group.t_us + day * DAY_US) for group in window.groups)
    moved = replace(window, start_us=window.start_us + day * DAY_US, end_us=window.end_us + day * DAY_US, groups=groups)
    return replace(usual, window=moved)


def append(lake: Lake, number: int, each: OpenedBatch) -> None:
    for table in ("samples", "events", "batches"):
        lake.append(table, APP, number, [rows_of(each)])


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def held(uri: str) -> list[tuple[object, ...]]:
    return list(ask_sql(uri, "SELECT seq, count(*), sum(row) FROM samples GROUP BY seq ORDER BY seq").rows)


def test_many_files_become_few_and_every_row_stays(uri: str) -> None:
    lake = Lake(uri)
    for number in range(1, 8):
        append(lake, number, batch(number))
    before = held(uri)
    samples, _, batches = compact(uri, TODAY)
    assert (samples["files_before"], samples["files_after"], samples["files_compacted"]) == (7, 1, 7)
    assert samples["bytes_after"] < samples["bytes_before"]
    assert batches["files_after"] == 1
    assert held(uri) == before
    assert len(list(Path(uri, "samples").rglob("*.parquet"))) == 1


def test_commits_stay_exactly_once_over_compaction_checkpoint_and_vacuum(uri: str) -> None:
    lake = Lake(uri)
    for number in range(1, 5):
        append(lake, number, batch(number))
    compact(uri, TODAY)
    for table in lake._tables.values():
        table.update_incremental()
        table.create_checkpoint()
    before = held(uri)
    append(lake, 4, batch(4))  # a receiver that repeats its last commit
    again = Lake(uri)  # a receiver that starts anew
    assert max(again.landed(APP).values()) == 4
    append(again, 4, batch(4))
    assert held(uri) == before
    append(again, 5, batch(5))
    assert len(held(uri)) == 5


def test_compaction_beside_a_receiver_loses_and_doubles_nothing(uri: str) -> None:
    lake = Lake(uri)
    append(lake, 1, batch(1))
    done = threading.Event()

    def receive() -> None:
        for number in range(2, 40):
            append(lake, number, batch(number))
        done.set()

    receiver = threading.Thread(target=receive)
    receiver.start()
    rounds = 0
    while not done.is_set():
        compact(uri, Work(128_000_000, 1, retention_of(1, date(2025, 10, 9), campaign=None, vehicle=None), False))
        rounds += 1
    receiver.join()
    assert rounds > 1
    assert held(uri) == [(seq, 20, 190) for seq in range(1, 40)]


def test_retention_deletes_old_samples_and_keeps_what_explains_every_number(uri: str) -> None:
    lake = Lake(uri)
    loss = told(Loss(Reason.EVICTED_QUOTA, batches=1, first_seq=2, last_seq=2))
    started = (Event(loss[0].t_us, "started", {}),)
    append(lake, 1, on_day(1, 0, loss + started))
    append(lake, 2, on_day(3, 1))
    work = Work(128_000_000, 0, Retention(date(2025, 10, 10)), dry_run=True)
    assert [table["rows_deleted"] for table in compact(uri, work)] == [20, 1, 0]
    assert len(held(uri)) == 2  # a dry run changes nothing
    assert [table["rows_deleted"] for table in compact(uri, replace(work, dry_run=False))] == [20, 1, 0]
    assert [row[0] for row in held(uri)] == [3]
    assert ask_sql(uri, "SELECT kind FROM events").rows == (("loss",),)
    assert ask_sql(uri, "SELECT count(*) FROM batches").rows == ((2,),)


def test_retention_of_one_campaign_or_vehicle_leaves_the_others(uri: str) -> None:
    append(Lake(uri), 1, batch(1))
    day = date(2030, 1, 1)
    for other in (Retention(day, campaign="o'ther"), Retention(day, vehicle="6f1c1a52")):
        assert [table["rows_deleted"] for table in compact(uri, Work(10**8, 0, other, False))] == [0, 0, 0]
    mine = Retention(day, campaign="drive", vehicle=VEHICLE)
    assert [table["rows_deleted"] for table in compact(uri, Work(10**8, 0, mine, False))] == [20, 0, 0]


def test_samples_of_a_clock_that_was_not_set_are_not_old(uri: str) -> None:
    append(Lake(uri), 1, on_day(1, -20_000))  # 1971
    assert compact(uri, Work(10**8, 0, Retention(date(2030, 1, 1)), False))[0]["rows_deleted"] == 0


def test_days_are_counted_from_today() -> None:
    today = datetime(2026, 3, 31, tzinfo=UTC).date()
    assert retention_of(30, today, campaign=None, vehicle=None).before == date(2026, 3, 1)


def test_a_missing_lake_is_named(uri: str) -> None:
    with pytest.raises(Permanent, match="no table samples"):
        compact(uri, TODAY)
