"""An enrolled vehicle that signs hostile batches harms neither the receiver nor the lake.  No broker is involved."""

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.formats.up.encode import encode_window
from agent.formats.up.limits import MAX_BODY_BYTES, MAX_SEQ
from agent.formats.up.seal import seal
from fleet.__main__ import main
from fleet.commands import query as queries
from fleet.lake.compact import Work, compact
from fleet.lake.ledger import ledger
from fleet.lake.query import QUESTIONS, ask, ask_sql
from fleet.receiving import intake
from fleet.receiving.message import Message
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.receiving import hostile
from tests.fleet.vehicles import Vehicle, make_window, numbers


def bring(store: Store, vehicle: Vehicle, batches: Sequence[bytes]) -> tuple[set[int], set[int]]:
    """Bring batches into the lake, and return the numbers that were stored and those that were refused."""
    messages = [Message(vehicle.topic, batch) for batch in batches]
    acks = []
    while messages:
        messages = messages[store.take_in(messages) :]
        acks += [vehicle.verify(answer.payload) for answer in store.land()]
    return {seq for ack in acks for seq in numbers(ack.stored)}, {seq for ack in acks for seq in ack.refused}


def numbered(vehicle: Vehicle, seq: int) -> bytes:
    """Return a batch with the number `seq`, whose times are those of batch 1."""
    return seal(replace(vehicle.header(1), seq=seq), encode_window(make_window(1)), vehicle.key, vehicle.recipient)


def assert_lake_can_be_queried(fleet: FleetFolder) -> None:
    for question in QUESTIONS:
        ask(str(fleet.lake), question)
    ledger(str(fleet.lake), limit=100, stored=True)


@pytest.mark.parametrize("content", hostile.REFUSED)
def test_a_batch_that_exceeds_a_limit_is_refused_before_it_costs_memory(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, content: str
) -> None:
    bad = vehicle.sealed(1, hostile.body(hostile.REFUSED[content]()))
    assert len(bad) < 100_000
    tracemalloc.start()
    started_s = time.process_time()
    stored, refused = bring(store, vehicle, [bad, vehicle.batch(2)])
    seconds, (_, peak_bytes) = time.process_time() - started_s, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stored, refused) == ({2}, {1})
    assert seconds < 20  # tracemalloc multiplies the time; the first of these once took 62 s without it
    assert peak_bytes < 20 * MAX_BODY_BYTES
    assert_lake_can_be_queried(fleet)


@pytest.mark.parametrize("content", hostile.STORED)
def test_an_odd_batch_is_stored_and_the_lake_can_be_queried_and_compacted(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, content: str
) -> None:
    odd = vehicle.sealed(1, hostile.body(hostile.STORED[content]()))
    assert bring(store, vehicle, [odd, vehicle.batch(2)]) == ({1, 2}, set())
    assert_lake_can_be_queried(fleet)
    compact(str(fleet.lake), Work(target_bytes=10**8, unneeded_h=0, retention=None, dry_run=False))
    assert_lake_can_be_queried(fleet)


@pytest.mark.parametrize("seq", [2**53, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_sequence_number_that_no_vehicle_reaches_is_refused(vehicle: Vehicle, store: Store, seq: int) -> None:
    assert bring(store, vehicle, [numbered(vehicle, seq), vehicle.batch(2)]) == ({2}, {seq})


def test_the_largest_sequence_number_is_stored(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    seqs = [MAX_SEQ, MAX_SEQ - 1]
    assert bring(store, vehicle, [numbered(vehicle, seq) for seq in seqs]) == (set(seqs), set())
    assert_lake_can_be_queried(fleet)


def test_a_batch_on_which_the_receiver_fails_is_quarantined_and_others_are_stored(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = intake.rows_of

    def failing(batch: intake.OpenedBatch) -> intake.BatchRows:
        if batch.header.seq == 1:
            raise MemoryError("as a fault of the receiver might")
        return real(batch)

    monkeypatch.setattr(intake, "rows_of", failing)
    assert bring(store, vehicle, [vehicle.batch(1), vehicle.batch(2)]) == ({2}, set())
    (note,) = fleet.quarantine.glob("*.json")
    assert vehicle.name in note.read_text()
    assert "fault of the receiver" in note.read_text()
    monkeypatch.undo()
    assert bring(store, vehicle, [vehicle.batch(1)]) == ({1}, set())


@pytest.mark.parametrize(
    "sql",
    [
        "COPY samples TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{folder}/out.parquet'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "SELECT * FROM read_text('{folder}/secret')",
        "SELECT * FROM '{folder}/secret'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT * FROM lake",  # a variable of the Python code
    ],
)
def test_a_question_in_sql_reads_the_lake_and_nothing_else(
    fleet: FleetFolder, store: Store, tmp_path: Path, sql: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "secret").write_text("secret\n1\n")
    with pytest.raises(Permanent, match="DuckDB could not run the query"):
        ask_sql(str(fleet.lake), sql.format(folder=folder))
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_fleet_query_prints_no_control_character_of_a_vehicle(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = hostile.STORED["line separators and control characters in texts"]()
    odd.events.add(t_us=odd.start_us, kind="\x1b]0;title\x07").fields.add(name="\x1b[2J", text="\x9b31m")
    bring(store, vehicle, [vehicle.sealed(1, hostile.body(odd))])
    for question in [*queries.QUESTIONS, "sql"]:
        sql = ["SELECT * FROM samples"] if question == "sql" else []
        for form in ([], ["--json"]):
            assert main(["query", question, "--fleet", str(fleet.root), *sql, *form]) == 0
            said = capsys.readouterr().out
            assert all(line.isprintable() for line in said.split("\n")), said
