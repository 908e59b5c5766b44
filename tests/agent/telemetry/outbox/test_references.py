"""Test descriptions by reference from end to end, with the real outbox, spool, seal, codec and inbox.

The link loses, repeats and reorders batches.  Either side crashes, campaigns change while offline, and the receiver
loses its catalogues or all its state.  In the end every sample is read exactly as it was collected.
"""

import functools
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.formats.up.catalogue import UnknownCatalogue
from agent.formats.up.columns import ColumnGroup, Window
from agent.formats.up.decode import decode_batch
from agent.formats.up.recipient import RecipientPrivateKey, RecipientPublicKey
from agent.formats.up.seal import digest_of, unseal
from agent.telemetry.outbox.outbox import Outbox
from agent.telemetry.outbox.references import Description
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.catalogues import Verdict
from agent.telemetry.spool.recovery import CATALOGUES
from fleet.lake.batch_key import BatchKey
from fleet.receiving.catalogues import Catalogues
from fleet.receiving.inbox import Inbox
from fleet.receiving.pending_batches import SealedBatch
from tests.agent.formats.up.windows import CLOCK, samples, signal
from tests.agent.telemetry.spool.flaky import Crash, Fault, FlakyDisk, connector
from tests.agent.telemetry.spool.store import Store

VEHICLE = "0b9f6c1e-94a1-4c6e-8f0e-2a7f4f1d3c55"
BATCH_BYTES = 3_000
SIGNALS = 40


@functools.cache
def keys() -> tuple[ec.EllipticCurvePrivateKey, RecipientPrivateKey]:
    raw = x25519.X25519PrivateKey.generate()
    public = RecipientPublicKey("X25519", raw.public_key().public_bytes_raw(), raw.public_key())
    return ec.generate_private_key(ec.SECP256R1()), RecipientPrivateKey("X25519", raw.private_bytes_raw(), raw, public)


def description(number: int) -> Description:
    """Return the description of revision `number` of the only campaign."""
    infos = [signal(f"M{i}.S{number}_{i}", unit="km/h", scale=0.1 * i + number) for i in range(SIGNALS)]
    return Description(
        "drive", f"{number:012x}", [(info, {0: "off", 1: "on"} if i % 3 else {}) for i, info in enumerate(infos)]
    )


def window(number: int, serial: int) -> Window:
    """Return the `serial`-th window of revision `number`."""
    described = description(number).signals
    groups = []
    for first in (0, 7 * (serial % 4) + 1):
        chosen = described[first : first + 5]
        raw = np.array([[(serial + i) % 3, serial] for i in range(len(chosen))], np.int64)
        texts = tuple(
            {value: table[value] for value in row if value in table}
            for (_, table), row in zip(chosen, raw.tolist(), strict=True)
        )
        times = np.array([serial * 1_000, serial * 1_000 + 10 + first])
        groups.append(ColumnGroup(times, tuple(info for info, _ in chosen), raw, texts))
    return Window("drive", f"{number:012x}", serial * 1_000, serial * 1_000 + 500, CLOCK, tuple(groups))


class Receiver:
    """Works as the fleet's receiver does, but finished batches go into the dict `lake` instead of Delta tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake: dict[BatchKey, Window] = {}
        self.open()

    def open(self) -> None:
        self.inbox = Inbox.open(self.folder / "receiver.db", share="0-15")
        with self.inbox.transaction():
            self.inbox.known.learn(key for key in self.lake if not self.inbox.known.has_number(key))
        self.catalogues = Catalogues(self.inbox.catalogues)
        for commit in self.inbox.undone():
            self.land(commit.number, commit.batches)

    def land(self, number: int, batches: tuple[SealedBatch, ...]) -> None:
        for batch in batches:
            _, body = unseal(batch.sealed, keys()[1], keys()[0].public_key())
            self.lake[batch.key] = decode_batch(body, functools.partial(self.catalogues.find, VEHICLE))[0]
        self.inbox.finish(number)

    def receive(self, sealed: bytes, *, crash: bool = False) -> bytes | bool:
        """Return True if the batch is stored, the digest of a missing catalogue, or False after a crash.

        A crash comes after the inbox has taken the batch and before the lake has it.
        """
        header, body = unseal(sealed, keys()[1], keys()[0].public_key())
        key = BatchKey(VEHICLE, header.epoch, header.seq, digest_of(sealed))
        referred: list[bytes] = []

        def find(digest: bytes):  # type: ignore[no-untyped-def]
            referred.append(digest)
            return self.catalogues.find(VEHICLE, digest)

        try:
            _, carried = decode_batch(body, find)
        except UnknownCatalogue as error:
            return self.inbox.is_stored(key) or error.digest
        if carried is not None:
            self.catalogues.add_arrived(VEHICLE, carried)
        batch = SealedBatch(key, sealed, 0, referred[0] if referred else None)
        taken = self.inbox.take([batch], self.catalogues.take_arrived())
        if crash:
            self.reopen()
            return False
        if taken.commit is not None:
            self.land(taken.commit.number, taken.commit.batches)
        return True

    def reopen(self) -> None:
        self.inbox.close()
        self.open()

    def lose(self, *, everything: bool) -> None:
        if everything:
            self.inbox.close()
            for path in self.folder.glob("receiver.db*"):
                path.unlink()
            self.open()
        else:
            with closing(sqlite3.connect(self.folder / "receiver.db", isolation_level=None)) as database:
                database.execute("DELETE FROM catalogues")
            self.catalogues = Catalogues(self.inbox.catalogues)


class ReferencesModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="references-", dir=memory if memory.is_dir() else None))
        self.fault = Fault()
        self.revision = 0
        self.serial = 0
        self.put: list[Window] = []
        self.referring = 0

    @initialize()
    def begin(self) -> None:
        (self.folder / "receiver").mkdir()
        self.receiver = Receiver(self.folder / "receiver")
        self.start()

    def teardown(self) -> None:
        try:
            if hasattr(self, "spool"):
                self.drain()
                self.spool.close()
                self.receiver.inbox.close()
        finally:
            shutil.rmtree(self.folder)

    def start(self) -> None:
        self.fault.disarm()
        self.spool = Store.open(
            self.folder / "spool",
            quota_bytes=10**8,
            max_age_s=1e9,
            reserve_bytes=0,
            disk=FlakyDisk(self.fault),
            open_database=connector(self.fault),
        )
        device, private = keys()
        self.outbox = Outbox(
            self.spool,
            Sealer(VEHICLE, device, private.public, lambda: 0),
            lambda: CLOCK,
            batch_max_bytes=BATCH_BYTES,
            pending_max_bytes=10**9,
            refer=True,
        )
        self.outbox.describe([description(self.revision)])

    @rule(fault=st.none() | st.tuples(st.sampled_from(["fail", "crash"]), st.integers(0, 4), st.booleans()))
    def collect(self, fault: "tuple[str, int, bool] | None") -> None:
        self.serial += 1
        made = window(self.revision, self.serial)
        if fault is not None:
            self.fault.arm(fault[0], fault[1], done=fault[2])  # type: ignore[arg-type]
        crashed = False
        try:
            self.outbox.put([(made, 1)])
        except Crash:
            crashed = True
            self.crash()
        self.fault.disarm()
        if not crashed or any(entry.first_t_us == made.start_us for entry in self.entries()):
            self.put.append(made)

    @rule(number=st.integers(0, 3))
    def change_the_campaign(self, number: int) -> None:
        self.revision = number
        self.outbox.describe([description(number)])

    @rule()
    def crash(self) -> None:
        """Simulate SIGKILL: batches that wait in memory, because the disk refused them, are lost."""
        self.fault.disarm()
        waiting = [body for parcel in self.outbox._parcels.all() for body in parcel.bodies if body.samples]
        starts = {body.first_t_us for body in waiting}
        self.spool.close()
        self.start()
        landed = {entry.first_t_us for entry in self.entries()}
        self.put = [made for made in self.put if made.start_us not in starts or made.start_us in landed]

    def entries(self) -> list[Entry]:
        return self.spool.pending(10**6, exclude=(), lanes=tuple(Lane))

    # How many batches wait depends on random epochs and keys as well, and hypothesis rejects a choice among a number of
    # things that differs when it repeats an example.  So the choice is a number that is always drawn from one range.
    @rule(
        choice=st.integers(0, 999),
        fate=st.sampled_from(["arrives", "arrives", "acknowledgement lost", "receiver crashes"]),
    )
    def send(self, choice: int, fate: str) -> None:
        if entries := self.entries():
            self.deliver(entries[choice % len(entries)], fate)

    def deliver(self, entry: Entry, fate: str = "arrives") -> None:
        sealed = self.spool.read(entry)
        assert sealed is not None
        answer = self.receiver.receive(sealed, crash=fate == "receiver crashes")
        if fate == "acknowledgement lost" or answer is False:
            return
        if answer is True:
            self.spool.acknowledge(entry.epoch, [entry.seq])
            return
        supplied = self.spool.catalogue(answer)
        assert supplied is not None, "a waiting batch refers to a catalogue that the spool does not have"
        assert self.receiver.receive(supplied) is True

    @rule(everything=st.booleans())
    def receiver_loses(self, everything: bool) -> None:
        self.receiver.lose(everything=everything)

    @rule()
    def index_is_lost(self) -> None:
        self.outbox.flush()
        self.spool.close()
        for path in (self.folder / "spool").glob("index.sqlite3*"):
            path.unlink()
        self.start()

    def drain(self) -> None:
        self.fault.disarm()
        self.outbox.flush()
        assert self.outbox.problem is None
        for _ in range(3):
            for entry in self.entries():
                self.deliver(entry)
        assert self.entries() == []
        assert samples(self.receiver.lake.values()) == samples(self.put)

    @invariant()
    def what_batches_refer_to_is_kept_and_bounded(self) -> None:
        if not hasattr(self, "spool"):
            return
        kept = self.spool.catalogues()
        assert len(kept) <= CATALOGUES
        referred = {entry.refers for entry in self.entries() if entry.refers}
        assert referred <= kept.keys()
        files = list((self.folder / "spool" / "catalogues").glob("*.batch"))
        assert len(kept) <= len(files) <= len(kept) + 3  # a fault may have prevented removals


ReferencesModel.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestReferencesModel = ReferencesModel.TestCase


class Agent:
    """Holds an outbox and its spool, opened in `folder`."""

    def __init__(self, folder: Path, *, refer: bool = True, batch_max_bytes: int = BATCH_BYTES) -> None:
        self.spool = Store.open(folder, quota_bytes=10**8, max_age_s=1e9, reserve_bytes=0)
        device, private = keys()
        sealer = Sealer(VEHICLE, device, private.public, lambda: 0)
        self.outbox = Outbox(
            self.spool,
            sealer,
            lambda: CLOCK,
            batch_max_bytes=batch_max_bytes,
            pending_max_bytes=10**9,
            refer=refer,
        )
        self.outbox.describe([description(0)])

    def waiting(self) -> list[Entry]:
        return sorted(self.spool.pending(100, exclude=(), lanes=tuple(Lane)), key=lambda entry: entry.seq)

    def collect(self, serial: int = 1, number: int = 0) -> Entry:
        self.outbox.put([(window(number, serial), 1)])
        return self.waiting()[-1]


def test_a_batch_refers_only_after_the_receiver_acknowledged_the_catalogue(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    (carrier,) = agent.waiting()
    assert (carrier.lane, carrier.samples) == (Lane.EVENTS, 0)
    first = agent.collect(1)
    assert first.refers is None
    agent.spool.acknowledge(carrier.epoch, [carrier.seq])
    second = agent.collect(2)
    assert second.refers in agent.spool.catalogues()
    assert second.size_bytes < first.size_bytes - 100


def test_what_the_receiver_confirmed_is_remembered_across_restarts_and_not_offered_again(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    agent.spool.acknowledge(agent.spool.epoch, [1])
    agent.spool.close()
    agent = Agent(tmp_path / "spool")
    assert agent.waiting() == []
    assert agent.collect().refers is not None


def test_the_word_of_a_broker_confirms_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    agent.spool.acknowledge(agent.spool.epoch, [1], end_to_end=False)
    assert list(agent.spool.catalogues().values()) == [None]
    assert agent.collect().refers is None


def test_where_only_the_broker_acknowledges_every_batch_describes_itself(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool", refer=False)
    assert agent.waiting() == []
    assert agent.collect().refers is None


def test_a_catalogue_that_was_refused_is_offered_once_a_start_and_never_referred_to(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    (carrier,) = agent.waiting()
    agent.spool.refuse(carrier.epoch, {1: Refusal("of other bytes", bytes(32))})
    assert list(agent.spool.catalogues().values()) == [None]
    agent.spool.refuse(carrier.epoch, {1: Refusal("too deep", carrier.sealed.digest)})
    assert agent.collect().refers is None
    agent.outbox.describe([description(0)])
    assert list(agent.spool.catalogues().values()) == [Verdict.REFUSED]
    agent.spool.close()
    agent = Agent(tmp_path / "spool")
    assert list(agent.spool.catalogues().values()) == [None]


def test_a_refusal_takes_nothing_from_a_catalogue_that_was_confirmed(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    (carrier,) = agent.waiting()
    agent.spool.acknowledge(carrier.epoch, [1])
    agent.spool.refuse(carrier.epoch, {1: Refusal("by a receiver that was set back", carrier.sealed.digest)})
    (digest,) = agent.spool.catalogues()
    assert agent.spool.catalogues() == {digest: Verdict.CONFIRMED}
    assert agent.spool.catalogue(digest) is not None


def test_a_catalogue_goes_when_its_campaign_is_gone_and_no_batch_refers_to_it(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    agent.spool.acknowledge(agent.spool.epoch, [1])
    entry = agent.collect()
    assert entry.refers is not None
    agent.outbox.describe([])
    assert entry.refers in agent.spool.catalogues()
    agent.spool.acknowledge(entry.epoch, [entry.seq])
    agent.outbox.describe([])
    assert agent.spool.catalogues() == {}
    assert list((tmp_path / "spool" / "catalogues").iterdir()) == []


def test_quota_and_age_take_no_catalogue_that_batches_refer_to(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    agent.spool.acknowledge(agent.spool.epoch, [1])
    refers = agent.collect().refers
    assert refers is not None
    agent.spool.close()
    tight = Store.open(tmp_path / "spool", quota_bytes=1, max_age_s=0.0, reserve_bytes=2**60)
    assert tight.catalogue(refers) is not None
    tight.close()


def test_as_many_catalogues_are_kept_as_the_limit_says_and_batches_beyond_describe_themselves(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    for number in range(CATALOGUES + 2):
        agent.outbox.describe([description(number)])
        carriers = [entry.seq for entry in agent.waiting() if entry.lane is Lane.EVENTS]
        agent.spool.acknowledge(agent.spool.epoch, carriers)
        entry = agent.collect(number + 1, number)
        assert (entry.refers is not None) == (number < CATALOGUES)
    assert len(agent.spool.catalogues()) == CATALOGUES


def test_a_catalogue_too_large_for_a_batch_describes_what_fits_and_the_rest_describes_itself(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool", batch_max_bytes=1_400 + 420)
    (carrier,) = agent.waiting()
    assert carrier.size_bytes < 1_400 + 420
    agent.spool.acknowledge(carrier.epoch, [carrier.seq])
    entry = agent.collect(3)
    receiver = Receiver(tmp_path)
    sealed, catalogue = agent.spool.read(entry), agent.spool.catalogue(entry.refers or b"")
    assert sealed is not None
    assert catalogue is not None
    assert receiver.receive(sealed) == entry.refers
    assert receiver.receive(catalogue) is True
    assert receiver.receive(sealed) is True
    assert samples(receiver.lake.values()) == samples([window(0, 3)])
    receiver.inbox.close()


def test_a_damaged_copy_of_a_catalogue_is_not_sent_and_its_batches_are_given_up_by_name(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "spool")
    agent.spool.acknowledge(agent.spool.epoch, [1])
    entry = agent.collect()
    assert entry.refers is not None
    (copy,) = (tmp_path / "spool" / "catalogues").iterdir()
    copy.write_bytes(copy.read_bytes()[:-1])
    assert agent.spool.catalogue(entry.refers) is None
    assert agent.spool.give_up_unreadable(entry.epoch, [entry.seq], entry.refers) == 1
    ((_, loss),) = agent.spool.unreported_losses(5)
    assert (loss.reason.value, loss.samples, loss.detail) == (
        "corrupt",
        entry.samples,
        f"catalogue {entry.refers.hex()} is lost",
    )
