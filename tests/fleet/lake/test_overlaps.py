"""A window's batch and its parts both come, as after the loss of a vehicle's index: nothing is lost, nothing twice."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.formats.topics import Lane
from agent.formats.up.codec import decode_window, encode_window
from agent.formats.up.columns import ColumnGroup, Window
from agent.formats.up.cut import cut
from agent.formats.up.seal import Header, seal, unseal
from fleet.lake.ledger import COLUMNS, ledger
from fleet.lake.overlaps import IDENTITY, without
from fleet.lake.query import ask, ask_sql
from fleet.lake.rows import OpenedBatch, sample_rows
from fleet.lake.tables import SCHEMAS, Lake
from fleet.receiving.inbox import BatchKey, Commit, Inbox, Place, SealedBatch
from fleet.receiving.receiver import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Message, Store
from fleet.state.folder import FleetFolder
from tests.agent.telemetry.spool.depot import DEVICE, FLEET, VEHICLE, Depot
from tests.fleet.vehicles import EPOCH, T0_US, Vehicle, make_window

PARTS = (2, 3)
WHOLE = 4


def rows_of(window: Window, first: int, end: int) -> Window:
    """What it collected from its frame `first` up to `end`, as a window of its own."""
    (group,) = window.groups
    part = replace(group, t_us=group.t_us[first:end], raw=group.raw[:, first:end])
    return replace(window, groups=(part,), events=(), replaces=())


def complete() -> Window:
    return replace(make_window(WHOLE), events=(), replaces=PARTS)


def windows() -> dict[int, Window]:
    """A batch of another window, two parts, and their window, which has a tail that no part has."""
    whole = complete()
    return {1: make_window(1), 2: rows_of(whole, 0, 4), 3: rows_of(whole, 4, 8), WHOLE: whole}


def message(vehicle: Vehicle, seq: int) -> Message:
    return Message(vehicle.topic, vehicle.batch(seq, windows()[seq]))


def deliver(store: Store, vehicle: Vehicle, *seqs: int) -> None:
    """In one group; each is acknowledged."""
    messages = [message(vehicle, seq) for seq in seqs]
    assert store.take_in(messages) == len(messages)
    (answer,) = store.land()
    assert vehicle.verify(answer.payload).stored == tuple(sorted(set(seqs)))


def in_lake(fleet: FleetFolder) -> dict[int, int]:
    """Samples by batch."""
    found = ask_sql(str(fleet.lake), "SELECT seq, count(*) FROM samples GROUP BY seq ORDER BY seq").rows
    return {seq: count for seq, count in found if isinstance(seq, int) and isinstance(count, int)}


def assert_the_window_is_here_once(fleet: FleetFolder) -> None:
    sql = "SELECT signal, time, raw, value, text, row FROM samples WHERE seq <> 1"
    found = ask_sql(str(fleet.lake), sql).rows
    assert len(found) == 20
    assert len({line[:3] for line in found}) == 20
    assert sum(line[4] is not None for line in found) == 7  # texts of Speed.Gear: where raw is 0 or 1


def assert_all_numbers_are_explained(fleet: FleetFolder) -> None:
    told = ledger(str(fleet.lake), limit=9, stored=True)
    (row,) = (dict(zip(told.columns, row, strict=True)) for row in told.rows)
    assert (row["first_seq"], row["last_seq"], row["state"]) == (1, WHOLE, "stored")
    batches = ask(str(fleet.lake), "batches")
    row = dict(zip(batches.columns, batches.rows[0], strict=True))
    assert (row["last"], row["not_here"]) == (WHOLE, 0)
    here = row["batches"], row["replaced"]
    assert sum(int(str(count)) for count in here) == WHOLE


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([(1,), (2,), (3,), (4,)], {1: 20, 2: 8, 3: 8, 4: 4}),
        ([(1, 2, 3, 4)], {1: 20, 2: 8, 3: 8, 4: 4}),
        ([(4, 3, 2, 1)], {1: 20, 4: 20}),
        ([(1,), (4,), (2, 3)], {1: 20, 4: 20}),
        ([(1, 2), (4,), (3,)], {1: 20, 2: 8, 4: 12}),  # of missing parts the window has it all
        ([(3,), (4,), (2, 1)], {1: 20, 3: 8, 4: 12}),
        ([(1, 2, 3), (3, 4), (4, 2), (3, 4)], {1: 20, 2: 8, 3: 8, 4: 4}),
    ],
)
def test_a_window_and_its_parts_are_here_once_in_whatever_order_they_come(
    fleet: FleetFolder,
    vehicle: Vehicle,
    store: Store,
    order: Sequence[tuple[int, ...]],
    expected: dict[int, int],
) -> None:
    for seqs in order:
        deliver(store, vehicle, *seqs)
    deliver(store, vehicle, 1, 2, 3, 4)  # again
    assert in_lake(fleet) == expected
    assert_the_window_is_here_once(fleet)
    assert_all_numbers_are_explained(fleet)


@pytest.mark.parametrize("tables", [0, 1, 2, 3])
@pytest.mark.parametrize("group", [(1, 2, 3, 4), (4,)])
def test_a_crash_while_an_overlapping_window_lands_doubles_nothing(
    fleet: FleetFolder, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, tables: int, group: tuple[int, ...]
) -> None:
    store = open_store(fleet, Share())
    if len(group) == 1:
        deliver(store, vehicle, 1, 2, 3)
    store.take_in([message(vehicle, seq) for seq in group])

    class Killed(BaseException):
        pass

    append, landed = Lake.append, 0

    def dying(lake: Lake, name: str, app_id: str, number: int, batches: Sequence[OpenedBatch]) -> None:
        nonlocal landed
        if landed == tables:
            raise Killed
        landed += 1
        append(lake, name, app_id, number, batches)

    def never_finished(_inbox: Inbox, _number: int) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "append", dying)
        patched.setattr(Inbox, "finish", never_finished)
        with pytest.raises(Killed):
            store.land()
    store.close()
    store = open_store(fleet, Share())
    store.recover()
    assert store.totals.recovered == len(group)
    deliver(store, vehicle, 4, 3, 2, 1)
    store.close()
    assert in_lake(fleet) == {1: 20, 2: 8, 3: 8, 4: 4}
    assert_all_numbers_are_explained(fleet)


def test_an_inbox_that_is_rebuilt_from_the_lake_still_knows_the_parts(fleet: FleetFolder, vehicle: Vehicle) -> None:
    store = open_store(fleet, Share())
    deliver(store, vehicle, 1, 2)
    deliver(store, vehicle, 4)
    store.close()
    for path in fleet.receiver.glob("receiver.db*"):
        path.unlink()
    store = open_store(fleet, Share())
    deliver(store, vehicle, 1, 2, 3, 4)
    store.close()
    assert in_lake(fleet) == {1: 20, 2: 8, 4: 12}


def test_a_window_waits_for_the_vehicle_while_another_receiver_lands_its_part(tmp_path: Path) -> None:
    path = tmp_path / "receiver.db"
    one, other = (Inbox.open(path, share=share, known=lambda: ()) for share in ("0-7", "0-15"))
    key = [BatchKey(VEHICLE, EPOCH, seq) for seq in range(5)]
    commit = one.take([SealedBatch(Place(key[2]), b"part", 1)]).commit
    assert commit is not None
    window = SealedBatch(Place(key[4], replaces=(2, 3)), b"window", 1)
    taken = other.take([window])
    assert (taken.commit, taken.held) == (None, (key[4],))
    one.finish(commit.number)
    taken = other.take([window])
    assert taken.commit is not None
    assert taken.commit.batches == (replace(window, overlaps=(2,)),)


def test_samples_that_came_several_times_are_counted() -> None:
    def table(*raw: int) -> pa.Table:
        signals = make_window(1).groups[0].signals[:1]
        group = ColumnGroup(np.full(len(raw), T0_US), signals, np.array([raw], np.int64), ({},))
        header = Header(VEHICLE, EPOCH, 1, Lane.LIVE, "0" * 16, "X25519", T0_US)
        return sample_rows([OpenedBatch(header, replace(make_window(1), groups=(group,)), 100, T0_US)])

    others = table(1, 2, 2).select(IDENTITY.names).cast(IDENTITY)
    new = without(table(2, 3, 2, 1, 2, 1), others)
    assert sorted(new["raw"].to_pylist()) == [1, 2, 3]
    assert without(table(2, 1, 2), others).num_rows == 0


# ---- windows that were cut


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([(6,), (5,), (4,), (3,), (2,)], {4: 6, 5: 6, 6: 8}),
        ([(2,), (3,), (4,), (5,), (6,)], {2: 8, 3: 8, 6: 4}),
        ([(4,), (2,), (3,)], {2: 2, 3: 8, 4: 6}),  # the other pieces were never written
        ([(2, 5), (3, 4), (6,)], {}),
        ([(6, 2, 4), (3, 5)], {}),
    ],
)
def test_parts_of_a_cut_window_are_known_once_all_of_its_pieces_are(
    fleet: FleetFolder,
    vehicle: Vehicle,
    store: Store,
    order: Sequence[tuple[int, ...]],
    expected: dict[int, int],
) -> None:
    whole = complete()
    pieces = cut(whole, 3)
    assert len(pieces) == 3
    sealed = {2: (rows_of(whole, 0, 4), 0, 0), 3: (rows_of(whole, 4, 8), 0, 0)}
    sealed |= {4 + number: (piece, number, 2 - number) for number, piece in enumerate(pieces)}

    def envelope(seq: int) -> bytes:
        window, before, after = sealed[seq]
        header = replace(vehicle.header(seq), pieces_before=before, pieces_after=after)
        return seal(header, encode_window(window), vehicle.key, vehicle.recipient)

    came = {seq for seqs in order for seq in seqs}
    for seqs in [*order, tuple(came)]:
        store.take_in([Message(vehicle.topic, envelope(seq)) for seq in seqs])
        store.land()
    found = in_lake(fleet)
    if expected:
        assert found == expected
    sql = "SELECT signal, time, raw, count(*) FROM samples GROUP BY ALL"
    lines = ask_sql(str(fleet.lake), sql).rows
    assert {line[3] for line in lines} == {1}
    held = {sample for seq in came for sample in identities(sealed[seq][0])}
    assert len(lines) == len(held)


def identities(window: Window) -> Iterator[tuple[str, int, int]]:
    for group in window.groups:
        for signal, raw in zip(group.signals, group.raw.tolist(), strict=True):
            for t_us, value in zip(group.t_us.tolist(), raw, strict=True):
                yield signal.name, t_us, value


class Cloud:
    """A receiver without sealing, which may die at any moment, over a real lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake_uri = str(folder / "lake")
        self.batches: dict[int, OpenedBatch] = {}
        self.open()

    def open(self) -> None:
        self.lake = Lake(self.lake_uri)
        self.inbox = Inbox.open(self.folder / "receiver.db", share="0-15", known=self.lake.known)
        for commit in self.inbox.undone():
            self.land(commit, len(SCHEMAS))

    def receive(self, batches: Sequence[OpenedBatch], tables: int) -> None:
        """It dies when so many tables have the commit; of all of them it survives."""
        sealed = []
        for batch in batches:
            header = batch.header
            self.batches[header.seq] = batch
            key = BatchKey(VEHICLE, header.epoch, header.seq)
            place = Place(key, batch.window.replaces, header.pieces_before, header.pieces_after)
            sealed.append(SealedBatch(place, b"sealed", T0_US))
        commit = self.inbox.take(sealed).commit
        if commit is not None:
            self.land(commit, tables)
        if tables < len(SCHEMAS):
            self.inbox.close()
            self.open()

    def land(self, commit: Commit, tables: int) -> None:
        opened = [replace(self.batches[batch.key.seq], overlaps=batch.overlaps) for batch in commit.batches]
        for name in list(SCHEMAS)[:tables]:
            self.lake.append(name, self.inbox.app_id, commit.number, opened)
        if tables == len(SCHEMAS):
            self.inbox.finish(commit.number)

    def lose_the_inbox(self) -> None:
        self.inbox.close()
        for path in self.folder.glob("receiver.db*"):
            path.unlink()
        self.open()


@st.composite
def lives(draw: st.DrawFn) -> tuple[dict[int, OpenedBatch], list[tuple[list[int], int, bool]]]:
    """Batches of one window and of its parts, and how they come: groups, each with what dies behind it."""
    moments = draw(st.lists(st.integers(0, 6), min_size=3, max_size=12))  # not in order, and some twice
    raw = draw(st.lists(st.integers(0, 1), min_size=len(moments), max_size=len(moments)))
    signals = make_window(1).groups[0].signals[:1]
    group = ColumnGroup(T0_US + np.array(moments, np.int64), signals, np.array([raw], np.int64), ({},))
    whole = replace(make_window(1), groups=(group,), events=())
    tail = draw(st.integers(1, len(moments)))
    ends = sorted({0, tail, *draw(st.lists(st.integers(0, tail), max_size=3))})
    parts = [rows_of(whole, first, end) for first, end in pairwise(ends)]
    whole = replace(whole, replaces=tuple(range(1, len(parts) + 1)))
    pieces = [whole]
    if draw(st.booleans()) and len(set(moments)) > 2:
        pieces = cut(whole, draw(st.integers(2, 3)))
    batches = {}
    for seq, window in enumerate((*parts, *pieces), 1):
        number = seq - len(parts) - 1
        around = (number, len(pieces) - 1 - number) if number >= 0 else (0, 0)
        header = Header(VEHICLE, EPOCH, seq, Lane.LIVE, "0" * 16, "X25519", T0_US, *around)
        batches[seq] = OpenedBatch(header, window, 100, T0_US)
    groups = st.lists(st.sampled_from(sorted(batches)), min_size=1, max_size=4)
    survives = st.sampled_from([3, 3, 3, 0, 1, 2])
    return batches, draw(st.lists(st.tuples(groups, survives, st.booleans()), min_size=1, max_size=6))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(life=lives())
def test_whatever_comes_in_whatever_order_each_sample_is_here_as_often_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    life: tuple[dict[int, OpenedBatch], list[tuple[list[int], int, bool]]],
) -> None:
    batches, groups = life
    folder = tmp_path_factory.mktemp("cloud")
    cloud = Cloud(folder)
    came: set[int] = set()
    for seqs, tables, inbox_lost in groups:
        cloud.receive([batches[seq] for seq in seqs], tables)
        if inbox_lost:
            cloud.lose_the_inbox()
        came |= set(seqs)
    cloud.inbox.close()
    as_part: Counter[object] = Counter()
    as_piece: Counter[object] = Counter()
    for seq in came:
        window = batches[seq].window
        (as_piece if window.replaces else as_part).update(identities(window))
    sql = "SELECT signal, epoch_us(time), raw, count(*) FROM samples GROUP BY ALL"
    here = {tuple(line[:3]): line[3] for line in ask_sql(cloud.lake_uri, sql).rows}
    assert here == dict(as_part | as_piece)  # the larger of the two counts
    stored: set[int] = set()
    for row in ledger(cloud.lake_uri, limit=99, stored=True).rows:
        line = dict(zip(COLUMNS, row, strict=True))
        if line["state"] == "stored":
            stored |= set(range(int(str(line["first_seq"])), int(str(line["last_seq"])) + 1))
    assert came <= stored
    shutil.rmtree(folder)


@pytest.mark.parametrize("written", [1, 2, None])
@pytest.mark.parametrize("first", ["newest", "oldest"])
def test_what_a_vehicle_sends_that_lost_its_index_while_a_cut_window_was_being_written_is_here_once(
    tmp_path: Path, written: int | None, first: str
) -> None:
    """`written`: pieces of the window that reached the disk; None: all of them."""
    folder, aside = tmp_path / "spool", tmp_path / "parts"
    depot = Depot(folder, batch_max_bytes=6_000)
    noise = np.random.default_rng(1).integers(0, 2**16, (2, 10_000))  # does not compress
    group = replace(make_window(1).groups[0], t_us=T0_US + np.arange(10_000), raw=noise, texts=({}, {}))
    whole = replace(make_window(1), groups=(group,), events=())
    assert depot.outbox.put_parts([(rows_of(whole, 0, 7_000), 1)], {})
    shutil.copytree(folder / "batches", aside)
    depot.outbox.put([(whole, 1)])
    pieces = sorted((folder / "batches").rglob("*.batch"))
    assert len(pieces) > 2
    depot.spool.close()
    never_written = [] if written is None else pieces[written:]
    for path in [*folder.glob("index.sqlite3*"), *never_written]:
        path.unlink()
    shutil.copytree(aside, folder / "batches", dirs_exist_ok=True)
    depot = Depot(folder)
    sent = []
    for entry in sorted(depot.entries(), key=lambda entry: entry.seq, reverse=first == "newest"):
        if content := depot.spool.read(entry):
            header, body = unseal(content, FLEET, DEVICE.public_key())
            sent.append(OpenedBatch(header, decode_window(body), len(content), T0_US))
    depot.spool.close()
    cloud = Cloud(tmp_path)
    for each in sent:
        if each.window.samples:
            cloud.receive([each], len(SCHEMAS))
    cloud.inbox.close()
    (here,) = ask_sql(cloud.lake_uri, "SELECT count(*), count(DISTINCT (signal, time, raw)) FROM samples").rows
    assert here[0] == here[1] == len({sample for each in sent for sample in identities(each.window)})
    assert here[0] == 20_000 if written is None else 14_000 <= int(str(here[0])) < 20_000
