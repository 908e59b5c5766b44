"""Compare the spool with a simple model under random actions, failing disks, and crashes at any operation.

Limits are tiny, so that batches are often evicted for space and for age.  After every step the spool's account must
add up: each number is acknowledged, waiting with exactly the bytes that were appended, or lost in a ledger record.
"""

import errno
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, SealedBatch
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.schema import connect
from tests.agent.telemetry.spool.flaky import Crash, Fault, FlakyDisk, connector
from tests.agent.telemetry.spool.store import Draft, Store

QUOTA_BYTES = 3_000
MAX_AGE_S = 100.0


@dataclass
class Batch:
    content: bytes
    samples: int
    reported: tuple[Loss, ...]


class SpoolModel(RuleBasedStateMachine):
    memory_bytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.fault = Fault()
        self.now_s = 1_000
        self.batches: dict[BatchId, Batch] = {}  # batches that may be waiting
        self.sendable: dict[BatchId, bytes] = {}  # contents that `pending` has ever offered
        self.acknowledged = 0
        self.told: Counter[Reason] = Counter()  # frames of losses whose report arrived
        self.recorded: Counter[Reason] = Counter()
        self.point = 0
        self.serial = 0
        self.failures = 0  # since the spool was opened
        self.unswept = 0  # acknowledged batches whose files are not removed yet
        self.window = "f" * 32
        self.checkpoints: list[BatchId] = []  # of the open window
        self.promoted: set[BatchId] = set()  # checkpoints that may be sent
        self.closed: set[str] = set()  # windows that are stored
        self.handed_out: dict[int, Loss] = {}

    @initialize()
    def begin(self) -> None:
        self.spool = self.open()
        self.epoch = self.spool.epoch

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    def open(self) -> Store:
        return Store(
            self.folder / "spool",
            Limits.of(QUOTA_BYTES, MAX_AGE_S, 0, self.memory_bytes),
            clock=self.clock,
            disk=FlakyDisk(self.fault),
            open_database=connector(self.fault),
        )

    def clock(self) -> Clock:
        """Return a reading of the clocks.  CLOCK_BOOTTIME goes back where another boot begins."""
        return Clock(ClockQuality.UNSYNCHRONISED, "", 0, self.now_s * 1_000_000)

    def attempt(self, action: Callable[[], None]) -> Literal["done", "failed", "crashed"]:
        """Run `action` on a disk that may fail, in a process that may "crash".  After a crash the spool is reopened."""
        armed = self.fault.armed
        try:
            action()
        except Transient:
            return "failed"
        except Crash:
            self.reopen()
            return "crashed"
        finally:
            self.failures += armed and not self.fault.armed
            self.fault.disarm()
        return "done"

    faults = st.none() | st.tuples(
        st.sampled_from(["fail", "crash"]),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]),
    )

    def arm(self, fault: "tuple[str, int, bool, int] | None") -> None:
        if fault is not None:
            mode, after, done, code = fault
            self.fault.arm(mode, after, done=done, code=code)  # type: ignore[arg-type]

    def store(
        self,
        drafts: list[Draft],
        reports: list[int],
        fault: "tuple[str, int, bool, int] | None",
    ) -> "tuple[bool, list[SealedBatch]]":
        """Append drafts on a disk that may fail, and return whether the append happened, and the batches.

        The token and the resume point must agree on whether the append happened.
        """
        self.serial += 1
        token, point = str(self.serial), self.point + 1
        before, next_seq = self.waiting(), self.spool.counts().next_seq
        ids = iter(self.spool.writer.next_ids(len(drafts)))
        batches = [
            draft.sealed(draft.checkpoint or next(ids), () if number else reports)
            for number, draft in enumerate(drafts)
        ]
        self.arm(fault)
        outcome = self.attempt(lambda: self.spool.writer.append(batches, token=token, resume_points={"can0": point}))
        landed = self.spool.resume_points().get("can0", 0) == point
        assert outcome != "done" or landed
        assert self.spool.stored(token) is landed
        if landed:
            self.point = point
            for batch in batches:
                self.batches[batch.id] = Batch(batch.content, batch.samples, ())
            first = batches[0].id
            if first in self.waiting():
                self.batches[first].reported = tuple(self.handed_out[id_] for id_ in reports)
        else:
            assert self.spool.counts().next_seq == next_seq
            assert self.waiting() <= before | self.promoted
        return landed, batches

    @rule(
        parts=st.lists(
            st.tuples(st.sampled_from(Lane), st.integers(0, 2), st.integers(0, 900), st.integers(0, 9)),
            min_size=1,
            max_size=3,
        ),
        report=st.booleans(),
        carries=st.none() | st.sampled_from([b"one", b"other"]),
        fault=faults,
    )
    def append(
        self,
        parts: list[tuple[Lane, int, int, int]],
        report: bool,
        carries: bytes | None,
        fault: "tuple[str, int, bool, int] | None",
    ) -> None:
        self.handed_out = dict(self.spool.unreported_losses(5) if report else [])
        drafts = [
            Draft(
                lane,
                priority,
                "c",
                lambda seq, size=size, number=self.serial: b"%d.%d:" % (number, seq) + bytes(size),
                samples,
                last_t_us=self.serial,
                carries=carries,
            )
            for lane, priority, size, samples in parts
        ]
        self.store(drafts, list(self.handed_out), fault)

    @rule(size=st.integers(0, 900), samples=st.integers(0, 9), priority=st.integers(0, 2), fault=faults)
    def store_a_checkpoint(
        self, size: int, samples: int, priority: int, fault: "tuple[str, int, bool, int] | None"
    ) -> None:
        number = len(self.checkpoints) + 1
        self.store([self.draft(size, samples, priority, BatchId(self.window, number))], [], fault)
        self.checkpoints = sorted(self.held())

    @rule(size=st.integers(0, 900), samples=st.integers(0, 9), priority=st.integers(0, 2), fault=faults)
    @precondition(lambda self: self.checkpoints)
    def close_the_window(
        self, size: int, samples: int, priority: int, fault: "tuple[str, int, bool, int] | None"
    ) -> None:
        checkpoints, window = set(self.checkpoints), self.window
        landed, _ = self.store([replace(self.draft(size, samples, priority), window=window)], [], fault)
        if landed:
            self.closed.add(window)
            self.checkpoints = []
            self.window = f"{self.serial:032x}"
        assert not landed or not self.waiting() & checkpoints

    @rule(fault=faults)
    @precondition(lambda self: self.checkpoints)
    def promote(self, fault: "tuple[str, int, bool, int] | None") -> None:
        self.arm(fault)
        self.attempt(lambda: self.spool.promote([self.window]))
        self.promoted |= set(self.checkpoints) - self.held()
        self.checkpoints = sorted(self.held())
        if not self.checkpoints:
            self.window = f"{self.serial + 10**9:032x}"

    def draft(self, size: int, samples: int, priority: int, checkpoint: BatchId | None = None) -> Draft:
        body = b"%d." % self.serial + bytes(size)
        return Draft(
            Lane.LIVE, priority, "c", lambda seq: b"%d:" % seq + body, samples, 1, self.serial, checkpoint=checkpoint
        )

    def held(self) -> set[BatchId]:
        """Return the ids of all checkpoints of open windows."""
        with self.spool._transactions.reading() as index:
            return {entry.key for entry in index.checkpoints.all()}

    @rule(data=st.data(), fault=faults)
    def acknowledge(self, data: st.DataObject, fault: "tuple[str, int, bool, int] | None") -> None:
        waiting = sorted(self.waiting())
        drawn = data.draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
        epoch = drawn[0].epoch if drawn else self.epoch
        ids = [id_ for id_ in drawn if id_.epoch == epoch]
        seqs = [id_.seq for id_ in ids]
        self.arm(fault)
        self.attempt(lambda: self.check(self.spool.acknowledge(epoch, [*seqs, 10**6]) == len(seqs)))
        gone = set(ids) - self.waiting()
        assert gone in (set(), set(ids))
        self.acknowledged += len(gone)
        self.unswept += len(gone)  # at most: batches in memory have no file
        for id_ in gone:
            for loss in self.batches[id_].reported:
                self.told[loss.reason] += loss.frames

    @rule(fault=faults)
    def sweep(self, fault: "tuple[str, int, bool, int] | None") -> None:
        self.arm(fault)
        if self.attempt(self.spool.sweep) == "done":
            self.unswept = 0

    @rule(data=st.data(), fault=faults)
    def refuse(self, data: st.DataObject, fault: "tuple[str, int, bool, int] | None") -> None:
        waiting = sorted(self.waiting())
        drawn = data.draw(st.lists(st.sampled_from(waiting), unique=True, max_size=2)) if waiting else []
        epoch = drawn[0].epoch if drawn else self.epoch
        refusals = {
            entry.seq: Refusal("no", entry.sealed.digest)
            for entry in self.spool.pending(10**6, exclude=(), lanes=list(Lane))
            if entry.key in drawn and entry.epoch == epoch
        }
        self.arm(fault)
        self.attempt(lambda: self.check(sorted(self.spool.refuse(epoch, refusals)) == sorted(refusals)))

    @rule(frames=st.integers(1, 9), bus=st.sampled_from(["can0", "can1"]), fault=faults)
    def record_loss(self, frames: int, bus: str, fault: "tuple[str, int, bool, int] | None") -> None:
        before = self.overflow()
        self.arm(fault)
        outcome = self.attempt(lambda: self.spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus=bus, frames=frames)]))
        assert self.overflow() == before + frames or (outcome != "done" and self.overflow() == before)
        self.recorded[Reason.BUS_OVERFLOW] = self.overflow()

    @rule(fault=faults)
    @precondition(lambda self: self.memory_bytes)
    def keep(self, fault: "tuple[str, int, bool, int] | None") -> None:
        self.serial += 1
        self.arm(fault)
        self.attempt(lambda: self.spool.catch_up.keep(f"keep {self.serial}"))

    @rule(data=st.data())
    @precondition(lambda self: self.on_disk())
    def damage(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.on_disk())))
        (entry,) = (e for e in self.spool.pending(10**6, exclude=(), lanes=list(Lane)) if e.key == id_)
        path = self.folder / "spool" / entry.name.folder / entry.name.file
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    @rule(seconds=st.integers(-50, 150))
    def pass_time(self, seconds: int) -> None:
        self.now_s = max(0, self.now_s + seconds)

    @rule()
    def reopen(self) -> None:
        self.fault.disarm()
        self.promoted |= self.held()
        self.spool.close()
        self.spool = self.open()
        self.failures = self.unswept = 0
        self.checkpoints = []  # the earlier ones will be sent
        self.window = f"{self.serial + 2 * 10**9:032x}"

    @rule()
    def read_everything(self) -> None:
        for entry in self.spool.pending(10**6, exclude=(), lanes=tuple(Lane)):
            content = self.spool.read(entry)
            if content is None:
                assert entry.key not in self.waiting()
                continue
            assert content == self.batches[entry.key].content
            assert self.sendable.setdefault(entry.key, content) == content  # a number never gets another content
            assert entry.epoch not in self.closed, "a checkpoint is offered although its window is stored"

    def check(self, value: bool) -> None:
        assert value

    def waiting(self) -> set[BatchId]:
        return {entry.key for entry in self.spool.pending(10**6, exclude=(), lanes=tuple(Lane))}

    def on_disk(self) -> set[BatchId]:
        """Return the waiting batches that memory does not hold."""
        return {id_ for id_ in self.waiting() if self.spool._memory.get(id_) is None}

    def overflow(self) -> int:
        lost = self.spool.counts().lost
        return lost[Reason.BUS_OVERFLOW].frames if Reason.BUS_OVERFLOW in lost else 0

    @invariant()
    def the_account_adds_up(self) -> None:
        if not hasattr(self, "spool"):
            return
        counts = self.spool.counts()
        waiting = self.spool.pending(10**6, exclude=(), lanes=tuple(Lane))
        assert counts.epoch == self.epoch
        assert counts.size_bytes == sum(entry.size_bytes for entry in waiting)
        assert counts.size_bytes - counts.in_memory[1] + counts.checkpoints[1] <= QUOTA_BYTES
        assert counts.in_memory[1] <= self.memory_bytes
        assert counts.checkpoints[0] == len(self.checkpoints)
        for lane in Lane:
            sizes = [0 if entry.withdrawn else entry.size_bytes for entry in waiting if entry.lane is lane]
            assert counts.lanes[lane] == (len(sizes), sum(sizes))
        assert counts.acknowledged == self.acknowledged
        lost = sum(total.batches for total in counts.lost.values())
        assert counts.next_seq - 1 + counts.adopted == self.acknowledged + len(waiting) + lost

    @invariant()
    def every_loss_is_told_or_will_be(self) -> None:
        if not hasattr(self, "spool"):
            return
        reported = Counter(self.told)
        for id_ in self.waiting():
            for loss in self.batches[id_].reported:
                reported[loss.reason] += loss.frames
        unreported = sum(
            loss.frames for _, loss in self.spool.unreported_losses(-1) if loss.reason is Reason.BUS_OVERFLOW
        )
        assert reported[Reason.BUS_OVERFLOW] + unreported == self.recorded[Reason.BUS_OVERFLOW]

    @invariant()
    def no_file_is_left_behind(self) -> None:
        if not hasattr(self, "spool"):
            return
        spool = self.folder / "spool"
        files = {BatchId(path.parent.name, int(path.name[:12])) for path in spool.glob("batches/*/0*.batch")}
        names = (path.name.split(".") for path in spool.glob("checkpoints/*.batch"))
        files |= {BatchId(window, int(number)) for window, number, *_ in names}
        assert self.on_disk() <= files
        left = files - self.on_disk() - set(self.checkpoints)
        assert len(left) <= self.unswept + self.failures  # a removal that failed is retried later

    @invariant()
    def what_is_kept_in_memory_is_what_the_disk_holds(self) -> None:
        if not hasattr(self, "spool"):
            return
        file = self.folder / "spool" / "index.sqlite3"
        with self.spool._transactions.reading() as index, closing(connect(file)) as database:
            disk = Index(database)
            assert (index.epoch, index.next_seq) == (disk.epoch, disk.next_seq)
            assert (index.resume_points.all(), index.reached.all()) == (disk.resume_points.all(), disk.reached.all())
            assert index.last_append == disk.last_append
            assert index.catalogues.all() == disk.catalogues.all()
            assert index.ledger.unreported_losses(-1) == disk.ledger.unreported_losses(-1)

    @invariant()
    def the_ledger_holds_nothing_of_batches_that_are_gone(self) -> None:
        if not hasattr(self, "spool"):
            return
        database = sqlite3.connect(self.folder / "spool" / "index.sqlite3")
        dangling = database.execute(
            "SELECT count(*) FROM losses WHERE reported_in > 0 AND reported_in NOT IN (SELECT id FROM batches)"
        ).fetchone()
        database.close()
        assert dangling == (0,)


SpoolModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSpoolModel = SpoolModel.TestCase


class ModelWithMemory(SpoolModel):
    """The same spool, which holds batches in memory for which the limits have no room."""

    memory_bytes = 1_500


ModelWithMemory.TestCase.settings = SpoolModel.TestCase.settings
TestModelWithMemory = ModelWithMemory.TestCase
