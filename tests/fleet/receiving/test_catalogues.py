"""The receiver keeps catalogues before it acknowledges them, and asks for missing ones."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import zstandard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.formats.up.catalogue import Catalogue
from fleet.lake.batch_key import BatchKey
from fleet.lake.query import ask_sql, query
from fleet.receiving.catalogue_table import CatalogueContent
from fleet.receiving.catalogues import Catalogues
from fleet.receiving.inbox import Inbox
from fleet.receiving.message import Message
from fleet.receiving.pending_batches import SealedBatch
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import EPOCH, T0_US, Vehicle, make_catalogue, make_vehicle, make_window, numbers

CATALOGUE = make_catalogue()


def bring(store: Store, vehicle: Vehicle, *payloads: bytes) -> tuple[set[int], dict[bytes, tuple[int, ...]]]:
    """Deliver batches to the store, and return the stored numbers and the numbers that wait for each catalogue."""
    assert store.take_in([Message(vehicle.topic, payload) for payload in payloads]) == len(payloads)
    acks = [vehicle.verify(message.payload) for message in store.land()]
    assert not any(ack.refused for ack in acks)
    stored = {seq for ack in acks for seq in numbers(ack.stored)}
    return stored, {digest: numbers(named) for ack in acks for digest, named in ack.wanted.items()}


def forget_catalogues(fleet: FleetFolder) -> None:
    with closing(sqlite3.connect(fleet.inbox, isolation_level=None)) as database:
        database.execute("DELETE FROM catalogues")


def rows(fleet: FleetFolder) -> list[dict[str, object]]:
    columns = "seq, row, campaign, signal, raw, value, unit, text"
    found: list[dict[str, object]] = query(
        str(fleet.lake), f"SELECT {columns} FROM samples ORDER BY seq, row"
    ).to_pylist()
    return found


def test_a_batch_that_refers_lands_as_if_it_described_itself(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    assert bring(store, vehicle, vehicle.catalogue_batch(1, CATALOGUE)) == ({1}, {})
    assert bring(store, vehicle, vehicle.batch(2, catalogue=CATALOGUE)) == ({2}, {})
    assert bring(store, vehicle, vehicle.batch(3, make_window(2))) == ({3}, {})
    referring, inline = ([{**row, "seq": 0} for row in rows(fleet) if row["seq"] == seq] for seq in (2, 3))
    assert referring == inline
    assert len(referring) == 20


def test_a_catalogue_serves_the_batches_behind_it_in_the_same_group(vehicle: Vehicle, store: Store) -> None:
    group = (vehicle.catalogue_batch(1, CATALOGUE), vehicle.batch(2, catalogue=CATALOGUE))
    assert bring(store, vehicle, *group) == ({1, 2}, {})


def test_a_batch_without_its_catalogue_is_asked_for_it_and_neither_stored_nor_quarantined(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    wanted = {CATALOGUE.digest: (2, 3)}
    group = [vehicle.batch(seq, catalogue=CATALOGUE) for seq in (2, 3)]
    assert bring(store, vehicle, *group) == (set(), wanted)
    assert bring(store, vehicle, *group, vehicle.catalogue_batch(1, CATALOGUE)) == ({1}, wanted)
    assert bring(store, vehicle, *group) == ({2, 3}, {})
    assert not list(fleet.quarantine.iterdir())
    assert (store.totals.waiting, store.totals.refused) == (4, 0)


def test_a_catalogue_is_kept_also_from_a_batch_that_is_a_duplicate(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    carrier = vehicle.catalogue_batch(1, CATALOGUE)
    bring(store, vehicle, carrier)
    forget_catalogues(fleet)
    assert bring(store, vehicle, vehicle.batch(2, catalogue=CATALOGUE)) == (set(), {CATALOGUE.digest: (2,)})
    assert bring(store, vehicle, carrier) == ({1}, {})
    assert bring(store, vehicle, vehicle.batch(2, catalogue=CATALOGUE)) == ({2}, {})


def test_a_stored_batch_is_acknowledged_again_without_its_catalogue(
    fleet: FleetFolder, vehicle: Vehicle, store: Store
) -> None:
    bring(store, vehicle, vehicle.catalogue_batch(1, CATALOGUE), vehicle.batch(2, catalogue=CATALOGUE))
    forget_catalogues(fleet)
    assert bring(store, vehicle, vehicle.batch(2, catalogue=CATALOGUE)) == ({2}, {})


def test_a_damaged_copy_never_makes_a_vehicle_mourn_a_batch_that_waits(vehicle: Vehicle, store: Store) -> None:
    good = vehicle.batch(2, catalogue=CATALOGUE)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    assert bring(store, vehicle, bad, good) == (set(), {CATALOGUE.digest: (2,)})


def test_the_catalogue_of_one_vehicle_does_not_serve_another(
    fleet: FleetFolder, vehicle: Vehicle, store: Store, tmp_path: Path
) -> None:
    other = make_vehicle(fleet, tmp_path / "other")
    bring(store, vehicle, vehicle.catalogue_batch(1, CATALOGUE))
    store.take_in([Message(other.topic, other.batch(1, catalogue=CATALOGUE))])
    (answer,) = store.land()
    assert other.verify(answer.payload).wanted.keys() == {CATALOGUE.digest}


def test_a_catalogue_damaged_on_the_receivers_disk_is_asked_for(fleet: FleetFolder, vehicle: Vehicle) -> None:
    store = open_store(fleet, Share())
    bring(store, vehicle, vehicle.catalogue_batch(1, CATALOGUE))
    store.close()
    for content in (b"rubbish", _packed(make_catalogue(more=1))):
        with closing(sqlite3.connect(fleet.inbox, isolation_level=None)) as database:
            database.execute("UPDATE catalogues SET content = ?", (content,))
        again = open_store(fleet, Share())
        assert bring(again, vehicle, vehicle.batch(2, catalogue=CATALOGUE))[1] == {CATALOGUE.digest: (2,)}
        again.close()
    again = open_store(fleet, Share())
    bring(again, vehicle, vehicle.catalogue_batch(1, CATALOGUE))
    again.close()
    again = open_store(fleet, Share())
    assert bring(again, vehicle, vehicle.batch(2, catalogue=CATALOGUE)) == ({2}, {})
    again.close()


def _packed(catalogue: Catalogue) -> bytes:
    return zstandard.compress(catalogue.content)


def test_a_commit_cut_short_by_a_crash_finds_its_catalogues_again(fleet: FleetFolder, vehicle: Vehicle) -> None:
    store = open_store(fleet, Share())
    store.take_in(
        [
            Message(vehicle.topic, vehicle.catalogue_batch(1, CATALOGUE)),
            Message(vehicle.topic, vehicle.batch(2, catalogue=CATALOGUE)),
        ]
    )
    store.close()  # the commit has not reached the lake
    store = open_store(fleet, Share())
    store.recover()
    assert store.totals.recovered == 2
    store.close()
    assert len(rows(fleet)) == 20


class CataloguesModel(RuleBasedStateMachine):
    """Models the inbox's catalogues.  The longest unused go first, but never one that an unfinished commit needs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="catalogues-"))
        self.used: dict[int, int] = {}
        self.clock = 0
        self.seq = 0
        self.pending: dict[int, int] = {}

    @initialize()
    def begin(self) -> None:
        self.open()

    def open(self) -> None:
        self.inbox = Inbox.open(self.folder / "receiver.db", share="0-15", catalogues=3)

    def teardown(self) -> None:
        self.inbox.close()
        shutil.rmtree(self.folder)

    def touch(self, number: int) -> None:
        self.clock += 1
        self.used[number] = self.clock

    @rule(number=st.integers(0, 7))
    def keep(self, number: int) -> None:
        self.inbox.take([], [CatalogueContent("v", bytes([number]) * 16, b"%d" % number)])
        self.touch(number)
        kept = sorted(self.used, key=self.used.__getitem__, reverse=True)
        for dropped in kept[3:]:
            if dropped not in self.pending.values():
                del self.used[dropped]

    @rule(data=st.data())
    @precondition(lambda self: self.used)
    def refer(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.used)))
        self.seq += 1
        batch = SealedBatch(BatchKey("v", EPOCH, self.seq, b"%016d" % self.seq), b"sealed", T0_US, bytes([number]) * 16)
        commit = self.inbox.take([batch]).commit
        assert commit is not None
        self.pending[commit.number] = number
        self.touch(number)

    @rule(data=st.data())
    @precondition(lambda self: self.pending)
    def finish(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.pending)))
        self.inbox.finish(number)
        del self.pending[number]

    @rule()
    def restart(self) -> None:
        self.inbox.close()
        self.open()
        assert {c.number: c.batches[0].catalogue for c in self.inbox.undone()} == {
            commit: bytes([number]) * 16 for commit, number in self.pending.items()
        }

    @invariant()
    def what_is_kept_is_what_the_model_keeps(self) -> None:
        if not hasattr(self, "inbox"):
            return
        kept = {n for n in range(8) if self.inbox.catalogues.has("v", bytes([n]) * 16)}
        assert kept == self.used.keys()
        assert all(self.inbox.catalogues.content("v", bytes([n]) * 16) == b"%d" % n for n in kept)
        assert kept >= set(self.pending.values())
        assert Catalogues(self.inbox.catalogues).find("v", bytes([9]) * 16) is None


CataloguesModel.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCataloguesModel = CataloguesModel.TestCase


def test_no_catalogue_reaches_the_tables_of_samples(fleet: FleetFolder, vehicle: Vehicle, store: Store) -> None:
    bring(store, vehicle, vehicle.catalogue_batch(1, CATALOGUE))
    assert rows(fleet) == []
    assert ask_sql(str(fleet.lake), "SELECT seq, samples, campaign FROM batches").rows == ((1, 0, "drive"),)
