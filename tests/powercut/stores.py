"""What each store is put through, and what must hold after a cut.

A drive calls `promise(state)` whenever the store has reported something durable.  `check` gets a folder as a cut left
it, what had been promised before the cut (None: nothing yet), and what the call under way was about to promise.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import Transient
from agent.formats.down.bundle import Versions
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.pushes.release import Release
from agent.pushes.store import Record
from agent.pushes.store import Store as PushStore
from agent.pushes.trial import Ref, Slots
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.spool.spool import Draft, Spool
from fleet.lake.batch_key import BatchKey
from fleet.receiving.inbox import Inbox, SealedBatch
from fleet.receiving.quarantine import Quarantine

Promise = Callable[[Any], None]


# ---- the spool


@dataclass(frozen=True)
class SpoolState:
    epoch: str
    next_seq: int
    waiting: dict[int, bytes]
    parts: dict[int, bytes]
    positions: dict[str, int]
    overflow: int


def open_spool(root: Path) -> Spool:
    return Spool.open(root / "state" / "spool", quota_bytes=12_000, max_age_s=1e9, reserve_bytes=0, now_s=lambda: 1e9)


def spool_state(spool: Spool, contents: dict[int, bytes], parts: set[int]) -> SpoolState:
    counts = spool.counts()
    waiting = {entry.seq for entry in spool.pending(10**6, exclude=(), lanes=tuple(Lane))}
    overflow = counts.lost[Reason.BUS_OVERFLOW].frames if Reason.BUS_OVERFLOW in counts.lost else 0
    return SpoolState(
        counts.epoch,
        counts.next_seq,
        {seq: contents[seq] for seq in waiting},
        {seq: contents[seq] for seq in parts},
        spool.positions(),
        overflow,
    )


def drive_spool(root: Path, chance: random.Random, promise: Promise) -> None:
    spool = open_spool(root)
    contents: dict[int, bytes] = {}
    parts: set[int] = set()

    def append(count: int, *, provisional: bool = False, replaces: tuple[int, ...] = ()) -> None:
        first = spool.counts().next_seq
        body = chance.randbytes(chance.choice((10, 700, 3_000)))
        draft = Draft(
            Lane.LIVE,
            chance.randrange(3),
            "city",
            lambda seq: b"%d:" % seq + body,
            7,
            1,
            first,
            provisional=provisional,
            replaces=tuple((spool.epoch, seq) for seq in replaces),
        )
        drafts = [draft, *[replace(draft, replaces=(), lane=draft.lane)] * (count - 1)]
        for seq in spool.append_all(drafts, positions={"can0:city": first + count - 1}):
            contents[seq] = b"%d:" % seq + body

    for _ in range(chance.randrange(4, 14)):
        waiting = spool.pending(10**6, exclude=(), lanes=tuple(Lane))
        match chance.randrange(10):
            case 0 | 1:
                append(chance.randrange(1, 4))
            case 2 | 3:
                append(1, provisional=True)
                parts.add(max(contents))
            case 4:
                append(1, replaces=tuple(sorted(parts)))
                parts.clear()
            case 5 if waiting:
                spool.acknowledge(spool.epoch, [entry.seq for entry in chance.sample(waiting, 1)])
            case 6 if waiting:
                spool.refuse(spool.epoch, {waiting[0].seq: Refusal("no", waiting[0].digest)})
            case 7:
                spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus="can0", frames=chance.randrange(1, 9))])
            case 8:
                spool.close()
                spool = open_spool(root)
                parts.clear()
            case 9:
                spool.sweep()
            case _:
                continue
        withdrawn = _withdrawn(spool)
        promise(spool_state(spool, contents, parts - withdrawn))
    spool.close()


def _withdrawn(spool: Spool) -> set[int]:
    with spool._transactions.reading() as index:
        return {entry.seq for entry in index.provisional() if entry.withdrawn is not None}


def check_spool(root: Path, before: SpoolState | None, after: SpoolState | None) -> None:
    spool = open_spool(root)
    try:
        found = {entry.seq: spool.read(entry) for entry in spool.pending(10**6, exclude=(), lanes=tuple(Lane))}
        counts = spool.counts()
        assert Reason.CORRUPT not in counts.lost, "a batch is damaged or missing"
        assert Reason.INDEX_DAMAGED not in counts.lost, "the index is damaged"
        lost = sum(total.batches for total in counts.lost.values())
        known = counts.acknowledged + counts.batches + counts.provisional[0] + counts.replaced + lost
        assert counts.next_seq - 1 + counts.adopted == known, "numbers that nothing explains"
        states = [state for state in (before, after) if state is not None]
        if before is not None:
            kept = before if after is None else after
            assert counts.epoch == before.epoch, "another epoch"
            for seq, content in (before.waiting | before.parts).items():
                stays = seq in kept.waiting or seq in kept.parts
                assert not stays or found.get(seq) == content, f"batch {seq} is not as it was reported durable"
            assert counts.next_seq >= before.next_seq, "a number would be given twice"
        contents: dict[int, bytes] = {}
        for state in states:
            contents |= state.waiting | state.parts
        if after is not None or before is not None:
            for seq, content in found.items():
                assert seq not in contents or contents[seq] == content, f"batch {seq} has another content"
        positions = spool.positions()
        allowed = [state.positions for state in states] + ([{}] if before is None else [])
        assert (after is None and before is None) or positions in allowed, "positions that nobody stored"
        if before is not None and after is not None and positions == after.positions != before.positions:
            assert counts.next_seq >= after.next_seq, "positions ahead of their batches"
        if before is not None:
            reported = counts.lost.get(Reason.BUS_OVERFLOW)
            frames = 0 if reported is None else reported.frames
            assert frames in {state.overflow for state in states}, "a loss that was recorded is gone"
        seq = spool.append(Draft(Lane.LIVE, 0, "new", lambda seq: b"new %d" % seq))
        assert before is None or seq >= before.next_seq
    finally:
        spool.close()


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
            ref = store.add_release(Release(version, toggles, (("c", b"{}"),)))
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
        assert store.record in allowed, "the record went back, or is none that was written"
    for ref in (store.record.slots.current, store.record.slots.trial):
        assert ref is None or store.release(ref) is not None, "a release that the record names is missing"


# ---- the receiver's state


@dataclass(frozen=True)
class ReceiverState:
    """`landed`: commits in the lake, which is durable by itself; `acknowledged`; `refused`: quarantined."""

    landed: dict[int, tuple[int, ...]]
    acknowledged: frozenset[int]
    refused: frozenset[str]


def open_inbox(root: Path, landed: dict[int, tuple[int, ...]]) -> Inbox:
    folder = root / "receiver"
    known = [BatchKey("v", "e", seq) for seqs in landed.values() for seq in seqs]
    return Inbox.open(folder / "receiver.db", share="0-15", known=lambda: known)


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
        keys = [BatchKey("v", "e", n) for n in seqs]
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
            quarantine.keep(payload, topic="t", reason="r", received_at_us=1)
            refused = set(quarantine._names)
            promise(ReceiverState(dict(landed), frozenset(acknowledged), frozenset(refused)))
        if chance.random() < 0.3:
            inbox.close()
            inbox = open_inbox(root, landed)
    inbox.close()


def check_receiver(root: Path, before: ReceiverState | None, after: ReceiverState | None) -> None:
    landed = {} if before is None else dict(before.landed)
    (root / "receiver" / "quarantine").mkdir(parents=True, exist_ok=True)  # `fleet init` makes them, not the receiver
    inbox = open_inbox(root, landed)
    try:
        assert inbox.last_number >= max(landed, default=0), "the inbox is older than the lake"
        for commit in inbox.undone():
            seqs = tuple(batch.key.seq for batch in commit.batches)
            assert commit.number not in landed or landed[commit.number] == seqs, "one number, two commits"
            landed[commit.number] = seqs
        in_lake = [seq for seqs in landed.values() for seq in seqs]
        assert len(in_lake) == len(set(in_lake)), "a batch twice in the lake"
        if before is not None:
            assert before.acknowledged <= set(in_lake), "a batch that was acknowledged is nowhere"
            again = inbox.take([SealedBatch(BatchKey("v", "e", seq), b"again", 2) for seq in sorted(in_lake)])
            assert again.commit is None, "a batch in the lake would be taken again"
            folder = root / "receiver" / "quarantine"
            kept = before.refused if after is None else before.refused & after.refused
            assert all((folder / f"{name}.sealed").stat().st_size == 600 for name in kept), "a refused batch is gone"
            Quarantine(folder)
    finally:
        inbox.close()


STORES: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "spool": (drive_spool, check_spool),
    "push_store": (drive_pushes, check_pushes),
    "receiver": (drive_receiver, check_receiver),
}
REFUSALS = (AssertionError, Transient)
