"""Drives the spool, and checks its state after a power cut, with its index and without."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Fragment, SealedBatch
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.spool import Spool

ALL = tuple(Lane)
NOW = Clock(ClockQuality.NETWORK, "boot", 1_800_000_000_000_000, 1_000_000_000)


@dataclass(frozen=True)
class SpoolState:
    """The durable state of a spool.

    `checkpoints` holds the checkpoints of open windows.  `stored_windows` names all windows that were ever stored.
    """

    epoch: str
    next_seq: int
    waiting: dict[BatchId, bytes]
    checkpoints: dict[BatchId, bytes]
    stored_windows: frozenset[str]
    resume_points: dict[str, int]
    token: str
    overflow: int


def open_spool(root: Path) -> Spool:
    return Spool(root / "state" / "spool", Limits.of(12_000, 1e9, 0), clock=lambda: NOW)


class Drive:
    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.spool = open_spool(root)
        self.contents: dict[BatchId, bytes] = {}
        self.window = self.new_window()
        self.checkpoints = 0
        self.stored_windows: set[str] = set()
        self.token = ""
        self.point = 0

    def new_window(self) -> str:
        return f"{self.chance.getrandbits(128):032x}"

    def act(self) -> bool:
        waiting = self.spool.reader.pending(10**6, exclude=(), lanes=ALL)
        match self.chance.randrange(11):
            case 0:
                self.append([self.batch(id_) for id_ in self.spool.writer.next_ids(self.chance.randrange(1, 4))])
            case 1 | 2 | 3:
                self.append([replace(self.batch(BatchId(self.window, self.checkpoints + 1)), waits=True)])
                self.checkpoints += 1
            case 4 | 5:
                self.close_window()
            case 6 if waiting:
                chosen = self.chance.choice(waiting)
                self.spool.reader.acknowledge(chosen.epoch, [chosen.sealed])
            case 7 if waiting:
                self.spool.reader.refuse(waiting[0].epoch, {waiting[0].seq: Refusal("no", waiting[0].sealed.digest)})
            case 8:
                lost = Loss(Reason.BUS_OVERFLOW, bus="can0", frames=self.chance.randrange(1, 9))
                self.point += 1
                self.token = str(self.point)
                points = {"can0:city": self.point}
                self.spool.writer.record_losses([lost], token=self.token, resume_points=points)
            case 9:
                self.spool.close()
                self.spool = open_spool(self.root)
                self.window, self.checkpoints = self.new_window(), 0
            case 10:
                self.spool.reader.sweep()
            case _:
                return False
        return True

    def close_window(self) -> None:
        count = self.chance.randrange(1, 4)
        self.append(
            [
                replace(self.batch(id_), fragment=Fragment(self.window, number, count))
                for number, id_ in enumerate(self.spool.writer.next_ids(count), 1)
            ]
        )
        self.stored_windows.add(self.window)
        self.window, self.checkpoints = self.new_window(), 0

    def batch(self, id_: BatchId) -> SealedBatch:
        content = b"%s %d:" % (id_.epoch.encode(), id_.seq)
        content += self.chance.randbytes(self.chance.choice((10, 700, 3_000)))
        return SealedBatch(id_, Lane.LIVE, self.chance.randrange(3), content, "city", 7, 1, 2)

    def append(self, batches: list[SealedBatch]) -> None:
        self.point += 1
        self.token = str(self.point)
        self.spool.writer.append(batches, token=self.token, resume_points={"can0:city": self.point})
        self.contents |= {batch.id: batch.content for batch in batches}

    def state(self) -> SpoolState:
        counts = self.spool.counts()
        waiting = self.spool.reader.pending(10**6, exclude=(), lanes=ALL)
        with self.spool._transactions.reading() as index:
            held = [entry.key for entry in index.checkpoints.all() if entry.withdrawn is None]
        return SpoolState(
            counts.epoch,
            counts.next_seq,
            {entry.key: self.contents[entry.key] for entry in waiting},
            {key: self.contents[key] for key in held},
            frozenset(self.stored_windows),
            self.spool.resume_points(),
            self.token,
            _overflow(self.spool),
        )


def drive_spool(root: Path, chance: random.Random, promise: Callable[[SpoolState], None]) -> None:
    drive = Drive(root, chance)
    for _ in range(chance.randrange(4, 14)):
        if drive.act():
            promise(drive.state())
    drive.spool.close()


def check_spool(root: Path, before: SpoolState | None, after: SpoolState | None) -> None:
    spool = open_spool(root)
    try:
        found, counts = _found(spool), spool.counts()
        assert Reason.CORRUPT not in counts.lost, "a batch is damaged or missing"
        assert Reason.INDEX_DAMAGED not in counts.lost, "the index is damaged"
        lost = sum(total.batches for total in counts.lost.values())
        known = counts.acknowledged + counts.batches + lost
        assert counts.next_seq - 1 + counts.adopted == known, "there are numbers that nothing explains"
        assert counts.checkpoints == (0, 0), "checkpoints of an ended process were not turned into batches"
        _check_contents(found, before, after)
        if before is not None:
            assert counts.epoch == before.epoch, "the epoch has changed"
            assert counts.next_seq >= before.next_seq, "a number would be used twice"
        states = [state for state in (before, after) if state is not None]
        points = spool.resume_points()
        allowed = [state.resume_points for state in states] + ([{}] if before is None else [])
        assert not states or points in allowed, "there are resume points that were never stored"
        if after is not None and points == after.resume_points:
            assert not points or spool.writer.stored(after.token), "there are resume points without their append"
            assert before is None or before.token == after.token or counts.next_seq >= after.next_seq
            assert _overflow(spool) == after.overflow, "the resume points passed frames whose loss is not recorded"
        elif after is not None:
            assert not spool.writer.stored(after.token), "there is an append without its resume points"
            assert before is None or _overflow(spool) == before.overflow, (
                "a loss is recorded, but its frames come again"
            )
        if before is not None:
            assert _overflow(spool) in {state.overflow for state in states}, "a loss that was recorded is gone"
        _append_one(spool, before)
    finally:
        spool.close()


def check_spool_without_index(root: Path, before: SpoolState | None, after: SpoolState | None) -> None:
    """Check the state after a cut that has also cost the index, so that only the names of the files are left."""
    for path in (root / "state" / "spool").glob("index.sqlite3*"):
        path.unlink()
    spool = open_spool(root)
    try:
        found, counts = _found(spool), spool.counts()
        lost = sum(total.batches for total in counts.lost.values())
        assert counts.adopted == counts.batches + lost, "there are batches that nothing explains"
        _check_contents(found, before, after)
        _append_one(spool, None)
    finally:
        spool.close()


def _check_contents(found: dict[BatchId, bytes | None], before: SpoolState | None, after: SpoolState | None) -> None:
    """Check that durable batches are there with their content, and that no checkpoint is there beside its window."""
    states = [state for state in (before, after) if state is not None]
    if before is not None:
        kept = before if after is None else after
        for id_, content in (before.waiting | before.checkpoints).items():
            if id_ in kept.waiting or id_ in kept.checkpoints:
                # A checkpoint may be missing if its window was being stored.
                assert found.get(id_) == content, f"batch {id_} was reported durable and has another content"
        both = before.stored_windows & {id_.epoch for id_ in found}
        assert not both, f"checkpoints of {both} would be sent although their windows were stored"
    contents: dict[BatchId, bytes] = {}
    for state in states:
        contents |= state.waiting | state.checkpoints
    for id_, content in found.items():
        assert id_ not in contents or contents[id_] == content, f"batch {id_} has another content"


def _append_one(spool: Spool, before: SpoolState | None) -> None:
    (id_,) = spool.writer.next_ids(1)
    spool.writer.append([SealedBatch(id_, Lane.LIVE, 0, b"new")], token="new")
    assert before is None or id_.seq >= before.next_seq


def _found(spool: Spool) -> dict[BatchId, bytes | None]:
    return {entry.key: spool.reader.read(entry) for entry in spool.reader.pending(10**6, exclude=(), lanes=ALL)}


def _overflow(spool: Spool) -> int:
    lost = spool.counts().lost
    return lost[Reason.BUS_OVERFLOW].frames if Reason.BUS_OVERFLOW in lost else 0
