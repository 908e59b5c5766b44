"""Drives each store, and checks its state after a power cut.

A drive calls `promise(state)` whenever the store has reported that a state is durable.  A check gets the folder that a
cut left, the last state promised before the cut, and the first state promised after the cut, or None for either.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import Transient
from agent.formats.down.bundle import Versions
from agent.formats.down.chunks import CHUNK_BYTES, LargeFile, large_field, large_file, pack
from agent.pushes.record import Record
from agent.pushes.release import Release
from agent.pushes.store import Store as PushStore
from agent.pushes.trial import Ref, Slots
from fleet.lake.batch_key import BatchKey
from fleet.receiving.inbox import Inbox
from fleet.receiving.message import Message
from fleet.receiving.pending_batches import SealedBatch
from fleet.receiving.quarantine import Quarantine
from tests.powercut.captures import check_captures, drive_captures
from tests.powercut.credentials import check_credentials, drive_credentials
from tests.powercut.spools import check_spool, check_spool_without_index, drive_spool

Promise = Callable[[Any], None]


# ---- the push store


@dataclass(frozen=True)
class PushState:
    record: Record


def drive_pushes(root: Path, chance: random.Random, promise: Promise) -> None:
    store = PushStore.open(root / "state" / "pushes")
    version = 0
    for _ in range(chance.randrange(3, 9)):
        version += chance.randrange(0, 3)
        ref: Ref | None = None
        if version:
            toggles = chance.randbytes(chance.choice((20, 2_000)))
            ref = store.add_release(Release(version, {"toggles.json": toggles, "campaigns/c.json": b"{}"}))
        slots = Slots(current=store.record.slots.trial or store.record.slots.current, trial=ref)
        store.commit(
            Record(floor=Versions(targets=version), metadata={"timestamp.json": chance.randbytes(900)}, slots=slots)
        )
        promise(PushState(store.record))
        if chance.random() < 0.3:
            store = PushStore.open(root / "state" / "pushes")


def check_pushes(root: Path, before: PushState | None, after: PushState | None) -> None:
    store = PushStore.open(root / "state" / "pushes")
    assert not store.damaged, "both copies of the record are damaged"
    if before is not None:
        allowed = [state.record for state in (before, after) if state is not None]
        assert store.record in allowed, "the record is an earlier one, or was never written"
    for ref in (store.record.slots.current, store.record.slots.trial):
        assert ref is None or store.release(ref) is not None, "a release that the record names is missing"


# ---- large documents, which arrive in chunks


@dataclass(frozen=True)
class Fetched:
    """The description of a document, the chunks of it that are stored, and whether its release is in force."""

    file: LargeFile
    chunks: frozenset[int]
    in_force: bool


def drive_large_files(root: Path, chance: random.Random, promise: Promise) -> None:
    store = PushStore.open(root / "state" / "pushes")
    for version in range(1, chance.randrange(2, 4)):
        document = chance.randbytes(CHUNK_BYTES * chance.randrange(1, 4) + chance.randrange(1, 5_000))
        packed = pack(document)
        file = large_file(large_field(document, packed), hashlib.sha256(packed).hexdigest(), len(packed))
        assert file is not None
        slots = store.record.slots
        store.commit(Record(floor=Versions(targets=version), slots=slots, wanted=(file,)))
        indices = list(range(len(file.hashes)))
        chance.shuffle(indices)
        for number, index in enumerate(indices, 1):
            store.files.add(file, index, packed[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
            promise(Fetched(file, frozenset(indices[:number]), in_force=False))
            if chance.random() < 0.2:
                store = PushStore.open(root / "state" / "pushes")
        release = Release(version, {"dbc/a.dbc": document}, {"dbc/a.dbc": (file.sha256, len(document))})
        ref = store.add_release(release)
        store.commit(Record(floor=Versions(targets=version), slots=Slots(current=ref, before=slots.current)))
        promise(Fetched(file, frozenset(indices), in_force=True))


def check_large_files(root: Path, before: Fetched | None, after: Fetched | None) -> None:
    store = PushStore.open(root / "state" / "pushes")
    assert not store.damaged, "both copies of the record are damaged"
    for ref in (store.record.slots.current, store.record.slots.before):
        assert ref is None or store.release(ref) is not None, "a release that the record names is missing"
    if before is None:
        return
    missing = set(store.files.missing(before.file))
    # The next document may displace the last but one, but never one that is fetched or in force.
    assert not missing & before.chunks, "a chunk that was stored is missing"
    if len(missing) == 0:
        assert store.files.read(before.file.sha256) is not None, "a chunk that was stored is damaged"
    if before.in_force:
        assert store.record.slots.current is not None, "the release in force is missing"


# ---- the receiver's state


@dataclass(frozen=True)
class ReceiverState:
    """The durable state of a receiver: commits in the lake, acknowledged numbers, and names in the quarantine."""

    landed: dict[int, tuple[int, ...]]
    acknowledged: frozenset[int]
    refused: frozenset[str]


def _key(seq: int) -> BatchKey:
    return BatchKey("v", "e", seq, b"%016d" % seq)


def open_inbox(root: Path, landed: dict[int, tuple[int, ...]]) -> Inbox:
    folder = root / "receiver"
    known = [_key(seq) for seqs in landed.values() for seq in seqs]
    inbox = Inbox.open(folder / "receiver.db", share="0-15")
    with inbox.transaction():
        # A file that was lost is rebuilt from the lake.  A file that survived knows all of this.
        inbox.known.learn(key for key in known if not inbox.known.has_number(key))
    return inbox


def drive_receiver(root: Path, chance: random.Random, promise: Promise) -> None:
    landed: dict[int, tuple[int, ...]] = {}
    acknowledged: set[int] = set()
    refused: set[str] = set()
    inbox = open_inbox(root, landed)
    quarantine = Quarantine(root / "receiver" / "quarantine", quota_files=3)
    seq = 0
    for _ in range(chance.randrange(3, 9)):
        seqs = [*range(seq + 1, seq + chance.randrange(1, 4)), *([chance.randrange(1, seq)] if seq > 2 else [])]
        seq = max([seq, *seqs])
        keys = [_key(n) for n in seqs]
        batches = [SealedBatch(key, b"%d:" % key.seq + bytes(chance.choice((9, 5_000))), 1) for key in keys]
        taken = inbox.take(batches)
        promise(ReceiverState(dict(landed), frozenset(acknowledged), frozenset(refused)))
        if taken.commit is not None:
            landed[taken.commit.number] = tuple(batch.key.seq for batch in taken.commit.batches)
            promise(ReceiverState(dict(landed), frozenset(acknowledged), frozenset(refused)))
            inbox.finish(taken.commit.number)
            acknowledged |= set(landed[taken.commit.number])
        acknowledged |= {key.seq for key in taken.stored}
        promise(ReceiverState(dict(landed), frozenset(acknowledged), frozenset(refused)))
        if chance.random() < 0.4:
            payload = chance.randbytes(600)
            quarantine.keep(Message("t", payload), reason="r", received_at_us=1)
            refused = set(quarantine._vehicles)
            promise(ReceiverState(dict(landed), frozenset(acknowledged), frozenset(refused)))
        if chance.random() < 0.3:
            inbox.close()
            inbox = open_inbox(root, landed)
    inbox.close()


def check_receiver(root: Path, before: ReceiverState | None, after: ReceiverState | None) -> None:
    landed = {} if before is None else dict(before.landed)
    (root / "receiver" / "quarantine").mkdir(parents=True, exist_ok=True)  # as `fleet init` does
    inbox = open_inbox(root, landed)
    try:
        assert inbox.last_number >= max(landed, default=0), "the inbox is older than the lake"
        for commit in inbox.undone():
            seqs = tuple(batch.key.seq for batch in commit.batches)
            assert commit.number not in landed or landed[commit.number] == seqs, "two commits have the same number"
            landed[commit.number] = seqs
        in_lake = [seq for seqs in landed.values() for seq in seqs]
        assert len(in_lake) == len(set(in_lake)), "the lake has a batch twice"
        if before is not None:
            assert before.acknowledged <= set(in_lake), "an acknowledged batch is missing"
            again = inbox.take([SealedBatch(_key(seq), b"again", 2) for seq in sorted(in_lake)])
            assert again.commit is None, "a batch in the lake would be stored again"
            folder = root / "receiver" / "quarantine"
            kept = before.refused if after is None else before.refused & after.refused
            assert all((folder / f"{name}.sealed").stat().st_size == 600 for name in kept), "a refused batch is missing"
            Quarantine(folder)
    finally:
        inbox.close()


STORES: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "spool": (drive_spool, check_spool),
    "spool_without_index": (drive_spool, check_spool_without_index),
    "captures": (drive_captures, check_captures),
    "push_store": (drive_pushes, check_pushes),
    "large_files": (drive_large_files, check_large_files),
    "credentials": (drive_credentials, check_credentials),
    "receiver": (drive_receiver, check_receiver),
}
REFUSALS = (AssertionError, Transient)
