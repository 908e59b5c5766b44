"""The store turns envelopes into rows of real Delta tables and signed acknowledgements.  No network is needed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import structlog
import zstandard
from deltalake import DeltaTable

from agent.errors import Permanent, Transient
from agent.formats import telemetry_pb2 as pb
from agent.formats.up.columns import ColumnGroup, Event, SignalInfo
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import digest_of, read_header
from can_dbc.values import Kind
from fleet.lake.batch_key import BatchKey
from fleet.lake.query import ask, ask_sql, query
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import Lake
from fleet.receiving.inbox import Inbox
from fleet.receiving.intake import Rejection, judge, open_batch
from fleet.receiving.message import Message
from fleet.receiving.pending_batches import SealedBatch
from fleet.receiving.reconcile import reconcile
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from fleet.state.sealing_keys import SealingKeys
from tests.fleet.vehicles import EPOCH, T0_US, Vehicle, make_fleet, make_vehicle, make_window, numbers


def no_catalogues(_vehicle: str, _digest: bytes) -> None:
    return None


def bring(store: Store, vehicle: Vehicle, *seqs: int) -> list[Message]:
    messages = [Message(vehicle.topic, vehicle.batch(seq)) for seq in seqs]
    assert store.take_in(messages) == len(messages)
    return store.land()


def in_lake(fleet: FleetFolder) -> list[tuple[int, int]]:
    rows = ask_sql(str(fleet.lake), "SELECT seq, count(*) FROM samples GROUP BY seq ORDER BY seq").rows
    return [(seq, count) for seq, count in rows if isinstance(seq, int) and isinstance(count, int)]


def test_messages_that_take_long_to_judge_are_left_for_the_next_call(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.receiving.store.JUDGE_S", 0.0)
    messages = [Message(vehicle.topic, vehicle.batch(seq)) for seq in (1, 2)]
    assert store.take_in(messages) == 1
    store.land()
    assert store.take_in(messages[1:]) == 1
    store.land()
    assert in_lake(fleet) == [(1, 20), (2, 20)]


def test_rows_are_what_the_window_said_in_its_order(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    big = np.array([[2**63 - 1, -1, -(2**63), 0]], np.int64)  # as unsigned: 2^63-1, 2^64-1, 2^63, 0
    floats = np.array([[1.5, np.inf, np.nan, -0.0]], np.float32).view(np.uint32).astype(np.int64)
    same_time = np.full(4, T0_US, np.int64)
    window = replace(
        make_window(1, samples=3),
        groups=(
            *make_window(1, samples=3).groups,
            ColumnGroup(same_time, (SignalInfo("M.Big", "can1", None, Kind.UINT, 64, 1.0, 0.0),), big, ({},)),
            ColumnGroup(same_time, (SignalInfo("M.F", "can1", "V", Kind.FLOAT32, 32, 2.0, 1.0),), floats, ({},)),
        ),
        events=(Event(T0_US, "loss", {"reason": "corrupt", "batches": 2, "rate": float("nan")}),),
    )
    store.take_in([Message(vehicle.topic, vehicle.batch(1, window))])
    store.land()
    table = query(str(fleet.lake), "SELECT * FROM samples ORDER BY row")
    rows = table.to_pylist()
    assert [row["row"] for row in rows] == list(range(14))
    speed, gear, large, floating = rows[:3], rows[3:6], rows[6:10], rows[10:]
    assert [(r["signal"], r["raw"], r["value"], r["unit"], r["text"]) for r in speed] == [
        ("Speed.VehicleSpeed", raw, raw * 0.01 + 0.0, "km/h", None) for raw in (1000, 1001, 1002)
    ]
    assert [r["text"] for r in gear] == ["reverse", "neutral", None]
    assert [r["value"] for r in gear] == [-1.0, 0.0, 1.0]
    assert [r["raw"] for r in large] == big[0].tolist()
    assert [r["value"] for r in large] == [float(2**63 - 1), float(2**64 - 1), float(2**63), 0.0]
    assert [str(r["value"]) for r in floating] == ["4.0", "inf", "nan", "1.0"]
    assert {(r["vehicle"], r["epoch"], r["seq"], r["campaign"]) for r in rows} == {(vehicle.name, EPOCH, 1, "drive")}
    assert {r["bus"] for r in speed} == {"can0"}
    assert {r["bus"] for r in large} == {"can1"}
    assert [r["time"].timestamp() for r in speed] == [(T0_US + 1_000_000 + i * 10_000) / 1e6 for i in range(3)]
    event = query(str(fleet.lake), "SELECT kind, reason, fields FROM events").to_pylist()
    assert event == [
        {"kind": "loss", "reason": "corrupt", "fields": '{"batches": 2, "rate": "nan", "reason": "corrupt"}'}
    ]


def test_a_batch_without_samples_is_stored_and_known(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    window = replace(make_window(1), campaign="", groups=(), events=())
    store.take_in([Message(vehicle.topic, vehicle.batch(1, window))])
    assert [numbers(vehicle.verify(m.payload).stored) for m in store.land()] == [(1,)]
    assert in_lake(fleet) == []
    assert query(str(fleet.lake), "SELECT seq, samples, events FROM batches").to_pylist() == [
        {"seq": 1, "samples": 0, "events": 0}
    ]


def test_batches_sent_again_are_acknowledged_again_and_stored_once(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    for seqs in ((1, 3), (2, 3, 3), (1,)):
        (answer,) = bring(store, vehicle, *seqs)
        assert numbers(vehicle.verify(answer.payload).stored) == tuple(sorted(set(seqs)))
    assert in_lake(fleet) == [(1, 20), (2, 20), (3, 20)]
    assert store.totals.duplicates == 3


def test_a_damaged_copy_never_makes_a_vehicle_mourn_a_stored_batch(vehicle: Vehicle, store: Store) -> None:
    good = vehicle.batch(1)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    store.take_in([Message(vehicle.topic, bad), Message(vehicle.topic, good)])
    (answer,) = store.land()
    ack = vehicle.verify(answer.payload)
    assert numbers(ack.stored) == (1,)
    assert ack.refused == {}


def test_times_outside_the_calendar_are_kept_out_and_refused(fleet: FleetFolder, vehicle: Vehicle) -> None:
    for window in (
        replace(make_window(1), start_us=-1),
        replace(make_window(1), clock=replace(make_window(1).clock, boottime_us=-(2**63))),
        replace(make_window(1), events=(Event(2**62, "x", {}),)),
        replace(make_window(1), groups=(replace(make_window(1).groups[0], t_us=np.full(10, -5)),)),
    ):
        verdict = judge(
            vehicle.topic,
            vehicle.batch(1, window),
            Registry(fleet.vehicles).find,
            SealingKeys(fleet).find,
            no_catalogues,
            received_at_us=T0_US,
        )
        assert isinstance(verdict, Rejection)
        assert "1970 to 2200" in verdict.reason
        assert verdict.final  # the content is sealed, so sending it again would never help


def test_a_batch_that_the_vehicle_made_and_nobody_can_read_is_refused_by_its_bytes(
    vehicle: Vehicle, store: Store
) -> None:
    batch = vehicle.sealed(1, b"no body of ours")
    store.take_in([Message(vehicle.topic, batch)])
    (answer,) = store.land()
    ack = vehicle.verify(answer.payload)
    assert ack.stored == ()
    assert ack.refused[1].digest == digest_of(batch)
    assert "decompress" in ack.refused[1].reason


def test_a_body_of_a_newer_release_waits_in_the_vehicle_until_the_receiver_is_updated(
    vehicle: Vehicle, store: Store
) -> None:
    newer = zstandard.compress(pb.TelemetryBatch(format=3).SerializeToString())
    store.take_in([Message(vehicle.topic, vehicle.sealed(1, newer))])
    assert store.land() == []
    assert store.totals.unanswered == 1


def damage_record(fleet: FleetFolder, vehicle: Vehicle) -> None:
    (fleet.vehicles / f"{vehicle.name}.json").write_text('{"vehicle": ')


def damage_certificate(fleet: FleetFolder, vehicle: Vehicle) -> None:
    path = fleet.vehicles / f"{vehicle.name}.json"
    path.write_text(path.read_text().replace("BEGIN CERTIFICATE", "BEGIN NOTHING"))


def make_record_unreadable(fleet: FleetFolder, vehicle: Vehicle) -> None:
    path = fleet.vehicles / f"{vehicle.name}.json"
    path.unlink()
    path.mkdir()  # reading a folder fails for root, too


def forget(fleet: FleetFolder, vehicle: Vehicle) -> None:
    (fleet.vehicles / f"{vehicle.name}.json").unlink()


def revoke(fleet: FleetFolder, vehicle: Vehicle) -> None:
    Registry(fleet.vehicles).revoke(vehicle.name)


@pytest.mark.parametrize("harm", [damage_record, damage_certificate, make_record_unreadable, forget, revoke])
def test_what_the_fleet_can_mend_is_answered_with_silence_and_stored_once_it_is_mended(
    fleet: FleetFolder,
    vehicle: Vehicle,
    store: Store,
    tmp_path: Path,
    harm: Callable[[FleetFolder, Vehicle], None],
) -> None:
    record = fleet.vehicles / f"{vehicle.name}.json"
    healthy, other = record.read_bytes(), make_vehicle(fleet, tmp_path / "other")
    harm(fleet, vehicle)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            store.take_in([Message(vehicle.topic, vehicle.batch(1)), Message(other.topic, other.batch(1))])
            (answer,) = store.land()
            assert other.verify(answer.payload).vehicle == other.name  # a bad record affects no other vehicle
    assert [entry["event"] for entry in logs].count("batch_not_answered") == 1
    assert store.totals.unanswered == 3
    if record.is_dir():
        record.rmdir()
    record.write_bytes(healthy + b"\n")  # a new size is noticed at any clock resolution
    (answer,) = bring(store, vehicle, 1)
    assert numbers(vehicle.verify(answer.payload).stored) == (1,)


def test_junk_in_a_vehicles_name_gets_no_answer_and_is_kept_for_who_looks_into_it(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    stranger = make_vehicle(fleet, tmp_path / "stranger")
    elsewhere = make_vehicle(make_fleet(tmp_path / "other fleet"), tmp_path / "elsewhere")
    good = vehicle.batch(1)
    junk = [
        good[:-1] + bytes([good[-1] ^ 1]),
        vehicle.batch(1, key=stranger.key),
        vehicle.sealed(1, b"no body", key=stranger.key),
        replace(vehicle, recipient=elsewhere.recipient, made={}).batch(1),
        b"rubbish",
    ]
    store.take_in([Message(vehicle.topic, payload) for payload in junk])
    assert store.land() == []
    assert store.totals.refused == store.totals.unanswered == len(junk)
    assert len(list(fleet.quarantine.glob("*.sealed"))) == len(junk)


def crash_after_taking(fleet: FleetFolder, vehicle: Vehicle, lake: Lake, tables: int, *seqs: int) -> None:
    """Leave the state of a receiver that was killed when `tables` of the three tables had the commit."""
    inbox = Inbox.open(fleet.inbox, share="0-15")
    reconcile(inbox, lake)
    sealed = [
        SealedBatch(BatchKey(vehicle.name, EPOCH, seq, digest_of(vehicle.batch(seq))), vehicle.batch(seq), T0_US)
        for seq in seqs
    ]
    commit = inbox.take(sealed).commit
    assert commit is not None
    find_key = SealingKeys(fleet).find
    opened = [
        open_batch(b.sealed, [vehicle.key.public_key()], find_key, no_catalogues, received_at_us=b.received_at_us).rows
        for b in sealed
    ]
    for name in list(SCHEMAS)[:tables]:
        lake.append(name, inbox.app_id, commit.number, opened)
    inbox.close()


@pytest.mark.parametrize("tables", [0, 1, 2, 3])
def test_a_commit_that_a_crash_cut_short_is_completed_in_the_tables_that_lack_it(
    fleet: FleetFolder, vehicle: Vehicle, tables: int
) -> None:
    lake = Lake(str(fleet.lake))
    crash_after_taking(fleet, vehicle, lake, tables, 2, 1)
    store = open_store(fleet, Share())
    store.recover()
    assert store.totals.recovered == 2
    (answer,) = bring(store, vehicle, 1, 2, 3)
    assert numbers(vehicle.verify(answer.payload).stored) == (1, 2, 3)
    store.close()
    assert in_lake(fleet) == [(1, 20), (2, 20), (3, 20)]
    counts = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM batches)"
    assert ask_sql(str(fleet.lake), counts).rows == ((3, 3),)


def test_what_was_taken_in_lands_after_a_crash_though_the_record_is_damaged_by_then(
    fleet: FleetFolder, vehicle: Vehicle
) -> None:
    crash_after_taking(fleet, vehicle, Lake(str(fleet.lake)), 1, 1)
    damage_record(fleet, vehicle)
    store = open_store(fleet, Share())
    store.recover()
    store.close()
    assert in_lake(fleet) == [(1, 20)]


@pytest.mark.parametrize("tables", [0, 1, 2, 3])
def test_what_cannot_be_opened_again_after_a_crash_is_quarantined_and_stored_once_when_it_comes_again(
    fleet: FleetFolder, vehicle: Vehicle, tables: int
) -> None:
    crash_after_taking(fleet, vehicle, Lake(str(fleet.lake)), tables, 1, 2)
    right = fleet.hpke_private.read_text()
    (suite,) = {read_header(vehicle.batch(1)).suite}
    fleet.hpke_private.write_text(RecipientPrivateKey.generate(suite).to_json().decode())
    store = open_store(fleet, Share())
    store.recover()
    assert bring(store, vehicle, 1, 2) == []  # it is not known, and cannot be opened
    store.close()
    assert (store.totals.recovered, store.totals.unanswered) == (0, 2)
    notes = [json.loads(note.read_text()) for note in fleet.quarantine.glob("*.json")]
    assert [note["topic"] for note in notes] == [vehicle.topic] * 2  # the topic by which the batch came
    fleet.hpke_private.write_text(right)
    store = open_store(fleet, Share())
    store.recover()
    (answer,) = bring(store, vehicle, 1, 2)
    store.close()
    assert numbers(vehicle.verify(answer.payload).stored) == (1, 2)
    assert in_lake(fleet) == [(1, 20), (2, 20)]
    assert ask_sql(str(fleet.lake), "SELECT count(*), (SELECT count(*) FROM events) FROM batches").rows == ((2, 2),)


@pytest.mark.parametrize("tables", [0, 1, 3])
def test_commits_of_a_share_that_nobody_serves_any_more_are_adopted(
    fleet: FleetFolder, vehicle: Vehicle, tables: int
) -> None:
    crash_after_taking(fleet, vehicle, Lake(str(fleet.lake)), tables, 2, 1)  # left by share 0-15
    store = open_store(fleet, Share(0, 7))
    store.recover()
    store.recover()
    assert store.totals.recovered == 2
    assert in_lake(fleet) == [(1, 20), (2, 20)]
    open_store(fleet, Share()).close()  # adopting a share releases its lock
    store.close()


def test_a_share_that_is_served_is_left_to_its_receiver(fleet: FleetFolder, vehicle: Vehicle) -> None:
    crash_after_taking(fleet, vehicle, Lake(str(fleet.lake)), 0, 1)
    served, store = open_store(fleet, Share()), open_store(fleet, Share(0, 7))
    store.recover()
    assert store.totals.recovered == 0
    served.recover()
    assert served.totals.recovered == 1
    served.close()
    store.close()


def test_a_lost_inbox_is_rebuilt_from_the_lake(fleet: FleetFolder, vehicle: Vehicle) -> None:
    store = open_store(fleet, Share())
    bring(store, vehicle, 1, 2)
    store.close()
    for path in fleet.receiver.glob("receiver.db*"):
        path.unlink()
    store = open_store(fleet, Share())
    store.recover()
    bring(store, vehicle, 2, 3)
    store.close()
    assert in_lake(fleet) == [(1, 20), (2, 20), (3, 20)]


def test_while_the_lake_refuses_nothing_is_acknowledged_and_nothing_is_lost(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    store.take_in([Message(vehicle.topic, vehicle.batch(1))])
    (fleet.lake / "events").rename(tmp_path / "events")
    (fleet.lake / "events").write_text("a file where a folder must be")
    with pytest.raises(Transient, match="events"):
        store.land()
    (fleet.lake / "events").unlink()
    (tmp_path / "events").rename(fleet.lake / "events")
    (answer,) = store.land()
    assert numbers(vehicle.verify(answer.payload).stored) == (1,)
    assert in_lake(fleet) == [(1, 20)]


def test_questions_are_answered(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    lake = str(fleet.lake)
    loss = Event(
        T0_US,
        "loss",
        {
            "reason": "evicted_quota",
            "epoch": EPOCH,
            "batches": 2,
            "samples": 40,
            "lane": "live",
            "first_seq": 3,
            "last_seq": 4,
        },
    )
    store.take_in([Message(vehicle.topic, vehicle.batch(seq)) for seq in (1, 2)])
    store.land()
    store.take_in([Message(vehicle.topic, vehicle.batch(6, replace(make_window(6), events=(loss,))))])
    store.land()

    def rows(question: str) -> list[dict[str, object]]:
        answer = ask(lake, question)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    assert [(row["signal"], row["samples"], row["min"], row["max"]) for row in rows("signals")] == [
        ("Speed.Gear", 30, -1.0, 1.0),
        ("Speed.VehicleSpeed", 30, 10.0, 60.09),
    ]
    latest = {row["signal"]: (row["value"], row["text"]) for row in rows("latest")}
    assert latest == {"Speed.VehicleSpeed": (60.09, None), "Speed.Gear": (-1.0, "reverse")}
    (batches,) = rows("batches")
    assert (batches["batches"], batches["last"], batches["not_here"], batches["samples"]) == (3, 6, 3, 60)
    assert len(rows("samples")) == len(rows("corrected")) == 60
    assert [row["kind"] for row in rows("events")] == ["started", "started", "loss"]
    assert ask(lake, "signals", vehicle="someone else").rows == ()


@pytest.mark.parametrize("sql", ["SELECT nope", "nonsense", ""])
def test_sql_that_cannot_be_answered_says_so(store: Store, fleet: FleetFolder, sql: str) -> None:
    with pytest.raises(Permanent):
        ask_sql(str(fleet.lake), sql)


@pytest.mark.parametrize(
    "change",
    [lambda fields: fields[:-1], lambda fields: [*fields, pa.field("more", pa.int64())], lambda fields: fields[:2]],
)
def test_a_lake_with_other_columns_is_refused_at_the_start_with_the_remedy(
    fleet: FleetFolder, change: Callable[[list[pa.Field]], list[pa.Field]]
) -> None:
    other = pa.schema(change(list(SCHEMAS["batches"])))
    DeltaTable.create(str(fleet.lake / "batches"), other, partition_by=["date"])
    with pytest.raises(
        Permanent, match=r"batches has other columns .* use the release that made the lake, or .* --lake"
    ):
        open_store(fleet, Share())
    assert DeltaTable(str(fleet.lake / "batches")).version() == 0  # the table is unchanged


def test_samples_with_and_without_a_source_address_are_kept_apart(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    counted = "SELECT source_address, count(*) FROM samples GROUP BY ALL ORDER BY ALL"
    groups = tuple(replace(group, source_address=255) for group in make_window(1).groups)
    store.take_in([Message(vehicle.topic, vehicle.batch(1, replace(make_window(1), groups=groups)))])
    store.land()
    assert ask_sql(str(fleet.lake), counted).rows == ((255, 20),)
    bring(store, vehicle, 2)
    assert ask_sql(str(fleet.lake), counted).rows == ((255, 20), (None, 20))
    for question in ("latest", "samples", "corrected"):
        answer = ask(str(fleet.lake), question, vehicle=vehicle.name)
        column = answer.columns.index("source_address")
        assert {row[column] for row in answer.rows} == {None, 255}


def test_a_damaged_table_is_one_clear_message(fleet: FleetFolder, store: Store) -> None:
    for entry in (fleet.lake / "samples" / "_delta_log").glob("*.json"):
        entry.write_text("rubbish")
    with pytest.raises(Permanent, match="samples"):
        ask(str(fleet.lake), "signals")
