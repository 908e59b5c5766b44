"""Test single cases of the ages of batches, and the table of boots; test_ages plays random histories."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality
from agent.telemetry.spool.batch import BatchId, entry_of
from agent.telemetry.spool.boot_records import MOST
from agent.telemetry.spool.boots import Boot, distances_us, observe, over_age
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import HandedOut
from tests.agent.telemetry.spool.store import Draft

S = 1_000_000
DATE_US = 1_800_000_000 * S


def reading(boot: str, boottime_s: int, wall_us: int = 0, *, trusted: bool = False) -> Clock:
    quality = ClockQuality.NETWORK if trusted else ClockQuality.RTC
    return Clock(quality, boot, wall_us, boottime_s * S)


@pytest.fixture
def index() -> Iterator[Index]:
    def open_database(_path: object) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    with closing(Index.open(None, open_database, new_epoch="e" * 32, handed_out=HandedOut())) as index:  # type: ignore[arg-type]
        yield index


def test_a_boot_without_a_date_keeps_its_distance_to_the_present_and_the_time_off_lies_before_it() -> None:
    dated = Boot(1, "a", 100 * S, DATE_US, DATE_US)
    undated = Boot(2, "b", 50 * S)
    present = Boot(3, "c", 10 * S, DATE_US + 1_000 * S, DATE_US + 1_000 * S)
    assert distances_us([dated, undated, present]) == [1_000 * S, 50 * S, 0]
    assert list(over_age([dated, undated, present], 60 * S)) == [(1, 950 * S)]
    assert list(over_age([dated, undated, present], 40 * S)) == [(1, 970 * S), (2, 20 * S)]


def test_only_clocks_that_the_network_or_gnss_set_are_trusted() -> None:
    trusted = {quality for quality in ClockQuality if Clock(quality, "", 0, 0).is_trusted}
    assert trusted == {ClockQuality.NETWORK, ClockQuality.GNSS}


@pytest.mark.parametrize("jump_s", [-400 * 86_400, 400 * 86_400])
def test_a_jump_of_the_clock_after_it_was_trusted_makes_nothing_older(jump_s: int) -> None:
    boots = observe((), reading("a", 10, DATE_US, trusted=True))
    boots = observe(boots, reading("b", 10, DATE_US + 100 * S, trusted=True))
    right_us = distances_us(boots)[0]
    assert right_us == 100 * S
    boots = observe(boots, reading("b", 20, DATE_US + (110 + jump_s) * S, trusted=True))
    assert distances_us(boots)[0] <= right_us


def test_a_boot_whose_dates_contradict_each_other_hides_no_time_between_two_others() -> None:
    stored = Boot(1, "a", 100 * S, DATE_US, DATE_US)
    stepped = Boot(2, "b", 50 * S, DATE_US - 10**6 * S, DATE_US + 1_000 * S)
    present = Boot(3, "c", 10 * S, DATE_US + 5_000 * S, DATE_US + 5_000 * S)
    assert distances_us([stored, stepped, present]) == [5_000 * S, 4_000 * S, 0]


def test_a_machine_that_tells_no_boot_id_counts_the_time_since_it_was_switched_on() -> None:
    boots = observe((), reading("", 1_000))
    boots = observe(boots, reading("", 30))
    assert [boot.number for boot in boots] == [1, 2]
    assert list(over_age(boots, 29 * S)) == [(1, 1_001 * S), (2, S)]


def test_the_number_of_boots_without_batches_is_limited_and_a_batch_keeps_its_boot(index: Index) -> None:
    batch = Draft(Lane.LIVE, 0, "city", lambda _seq: b"sealed").sealed(BatchId(index.epoch, 1))
    for number in range(MOST + 200):
        index.begin()
        moment = index.boots.note(reading(str(number), 10))
        if number == 0:
            row = index.rows.add(entry_of(batch), moment)
        index.commit()
    assert len(index.boots.all()) <= MOST + 2
    assert index.boots.all()[0].boot_id == "0"
    assert [entry.row for entry in index.queues.stored_before(1, 11 * S, 9)] == [row]
    index.begin()
    index.rows.remove(row)
    index.boots.note(reading("last", 10))
    index.commit()
    assert [boot.boot_id for boot in index.boots.all()] == ["last"]


def test_an_append_writes_the_boot_once_a_minute(index: Index) -> None:
    statements: list[str] = []
    index._db.set_trace_callback(statements.append)
    for second in range(0, 300, 5):
        index.begin()
        index.boots.note(reading("a", second, DATE_US + second * S + second % 3, trusted=True))
        index.commit()
    assert sum(statement.startswith("REPLACE") for statement in statements) == 5
