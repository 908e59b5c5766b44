"""The spool against a simple model: random actions, failing disks, crashes at any operation.

Limits are tiny, so that eviction and age are ordinary.  After every step the spool's account must add up: each number
is acknowledged, waiting with exactly the bytes that were appended, or lost in a ledger record that names it.
"""

import errno
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.schema import connect
from agent.telemetry.spool.spool import Draft, Spool
from tests.agent.telemetry.spool.flaky import Crash, Fault, FlakyFiles, connector

QUOTA_BYTES = 3_000
MAX_AGE_S = 100.0


@dataclass
class Batch:
    content: bytes
    samples: int
    reported: tuple[Loss, ...]


class SpoolModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.fault = Fault()
        self.now_s = 1_000.0
        self.batches: dict[int, Batch] = {}  # what may be waiting
        self.sendable: dict[int, bytes] = {}  # what pending has ever offered
        self.acknowledged = 0
        self.told: Counter[Reason] = Counter()  # frames of losses whose report arrived
        self.recorded: Counter[Reason] = Counter()
        self.position = 0
        self.serial = 0
        self.failures = 0  # since the spool was opened
        self.unswept = 0  # acknowledged, and their files not removed yet
        self.replaced = 0
        self.parts: list[int] = []  # provisional batches

    @initialize()
    def begin(self) -> None:
        self.spool = self.open()
        self.epoch = self.spool.epoch

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    def open(self) -> Spool:
        return Spool.open(
            self.folder / "spool",
            quota_bytes=QUOTA_BYTES,
            max_age_s=MAX_AGE_S,
            reserve_bytes=0,
            now_s=lambda: self.now_s,
            files=FlakyFiles(self.fault),
            open_database=connector(self.fault),
        )

    def attempt(self, action: Callable[[], None]) -> Literal["done", "failed", "crashed"]:
        """Do it, on a disk that may fail, in a process that may "crash" (then the spool is opened again)."""
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
        waiting = self.spool.unreported_losses(5) if report else []
        first = self.spool.counts().next_seq
        self.serial += 1
        body = b"%d." % self.serial
        drafts = [
            Draft(
                lane,
                priority,
                "c",
                lambda seq, size=size: b"%d:" % seq + body + bytes(size),
                samples,
                last_t_us=self.serial,
                carries=carries,
            )
            for lane, priority, size, samples in parts
        ]
        expected = {
            first + n: Batch(b"%d:" % (first + n) + body + bytes(size), samples, ())
            for n, (_, _, size, samples) in enumerate(parts)
        }
        before, position = self.waiting() | set(self.parts), self.position + 1
        self.arm(fault)

        def action() -> None:
            seqs = self.spool.append_all(drafts, reports=[id_ for id_, _ in waiting], positions={"can0": position})
            assert seqs == list(expected)

        outcome = self.attempt(action)
        landed = self.spool.positions().get("can0", 0) == position
        assert outcome == "crashed" or landed == (outcome == "done")
        next_seq = self.spool.counts().next_seq
        if landed:
            self.position = position
            self.batches |= expected
            assert next_seq == first + len(parts)
            if first in self.waiting():
                self.batches[first].reported = tuple(loss for _, loss in waiting)
        else:
            assert self.spool.counts().next_seq == first
            assert self.waiting() <= before

    @rule(size=st.integers(0, 900), samples=st.integers(0, 9), priority=st.integers(0, 2), fault=faults)
    def store_a_part(self, size: int, samples: int, priority: int, fault: "tuple[str, int, bool, int] | None") -> None:
        self.append_one(size, samples, priority, fault, provisional=True)

    @rule(size=st.integers(0, 900), samples=st.integers(0, 9), priority=st.integers(0, 2), fault=faults)
    @precondition(lambda self: self.parts)
    def replace_the_parts(
        self, size: int, samples: int, priority: int, fault: "tuple[str, int, bool, int] | None"
    ) -> None:
        self.append_one(size, samples, priority, fault, provisional=False)

    def append_one(
        self, size: int, samples: int, priority: int, fault: "tuple[str, int, bool, int] | None", *, provisional: bool
    ) -> None:
        first, parts, position = self.spool.counts().next_seq, list(self.parts), self.position + 1
        self.serial += 1
        body = b"%d." % self.serial
        replaces = () if provisional else tuple((self.epoch, seq) for seq in parts)
        draft = Draft(
            Lane.LIVE,
            priority,
            "c",
            lambda seq: b"%d:" % seq + body + bytes(size),
            samples,
            provisional=provisional,
            replaces=replaces,
        )
        expected = Batch(b"%d:" % first + body + bytes(size), samples, ())
        self.arm(fault)
        outcome = self.attempt(lambda: self.check(self.spool.append(draft, positions={"can0": position}) == first))
        landed = self.spool.positions().get("can0", 0) == position
        assert outcome == "crashed" or landed == (outcome == "done")
        if landed:
            self.position = position
            self.batches[first] = expected
            if outcome == "done":
                self.parts = [*parts, first] if provisional else []
            if not provisional:
                self.replaced += len(parts)
                assert not self.waiting() & set(parts)

    @rule(data=st.data(), fault=faults)
    def acknowledge(self, data: st.DataObject, fault: "tuple[str, int, bool, int] | None") -> None:
        waiting = sorted(self.waiting())
        seqs = data.draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
        self.arm(fault)
        self.attempt(lambda: self.check(self.spool.acknowledge(self.epoch, [*seqs, 10**6]) == len(seqs)))
        gone = set(seqs) - self.waiting()
        assert gone in (set(), set(seqs))
        self.acknowledged += len(gone)
        self.unswept += len(gone)
        for seq in gone:
            for loss in self.batches[seq].reported:
                self.told[loss.reason] += loss.frames

    @rule(fault=faults)
    def sweep(self, fault: "tuple[str, int, bool, int] | None") -> None:
        self.arm(fault)
        if self.attempt(self.spool.sweep) == "done":
            self.unswept = 0

    @rule(data=st.data(), fault=faults)
    def refuse(self, data: st.DataObject, fault: "tuple[str, int, bool, int] | None") -> None:
        waiting = sorted(self.waiting())
        seqs = data.draw(st.lists(st.sampled_from(waiting), unique=True, max_size=2)) if waiting else []
        refusals = {
            entry.seq: Refusal("no", entry.digest)
            for entry in self.spool.pending(10**6, exclude=(), lanes=list(Lane))
            if entry.seq in seqs
        }
        seqs = list(refusals)
        self.arm(fault)
        self.attempt(lambda: self.check(sorted(self.spool.refuse(self.epoch, refusals)) == sorted(seqs)))

    @rule(frames=st.integers(1, 9), bus=st.sampled_from(["can0", "can1"]), fault=faults)
    def record_loss(self, frames: int, bus: str, fault: "tuple[str, int, bool, int] | None") -> None:
        before = self.overflow()
        self.arm(fault)
        outcome = self.attempt(lambda: self.spool.record_losses([Loss(Reason.BUS_OVERFLOW, bus=bus, frames=frames)]))
        assert self.overflow() == before + frames or (outcome != "done" and self.overflow() == before)
        self.recorded[Reason.BUS_OVERFLOW] = self.overflow()

    @rule(data=st.data())
    @precondition(lambda self: self.waiting())
    def damage(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.waiting())))
        (path,) = self.folder.glob(f"spool/batches/{self.epoch}/{seq:012d}.*")
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")

    @rule(seconds=st.integers(-50, 150))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def reopen(self) -> None:
        self.fault.disarm()
        self.spool.close()
        self.spool = self.open()
        self.failures = self.unswept = 0
        self.parts = []  # become ordinary batches

    @rule()
    def read_everything(self) -> None:
        for entry in self.spool.pending(10**6, exclude=(), lanes=tuple(Lane)):
            content = self.spool.read(entry)
            if content is None:
                assert entry.seq not in self.waiting()
                continue
            assert content == self.batches[entry.seq].content
            assert self.sendable.setdefault(entry.seq, content) == content  # one number, one content, for ever

    def check(self, value: bool) -> None:
        assert value

    def waiting(self) -> set[int]:
        return {entry.seq for entry in self.spool.pending(10**6, exclude=(), lanes=tuple(Lane))}

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
        assert counts.size_bytes + counts.provisional[1] <= QUOTA_BYTES
        assert counts.provisional[0] == len(self.parts)
        assert counts.replaced == self.replaced
        for lane in Lane:
            sizes = [entry.size_bytes for entry in waiting if entry.lane is lane]
            assert counts.lanes[lane] == (len(sizes), sum(sizes))
        assert counts.acknowledged == self.acknowledged
        lost = sum(total.batches for total in counts.lost.values())
        assert counts.next_seq - 1 == self.acknowledged + len(waiting) + len(self.parts) + self.replaced + lost

    @invariant()
    def every_loss_is_told_or_will_be(self) -> None:
        if not hasattr(self, "spool"):
            return
        reported = Counter(self.told)
        for seq in self.waiting():
            for loss in self.batches[seq].reported:
                reported[loss.reason] += loss.frames
        unreported = sum(
            loss.frames for _, loss in self.spool.unreported_losses(-1) if loss.reason is Reason.BUS_OVERFLOW
        )
        assert reported[Reason.BUS_OVERFLOW] + unreported == self.recorded[Reason.BUS_OVERFLOW]

    @invariant()
    def no_file_is_left_behind(self) -> None:
        if not hasattr(self, "spool"):
            return
        files = {int(path.name[:12]) for path in self.folder.glob("spool/batches/*/0*.batch")}
        assert self.waiting() <= files
        left = files - self.waiting() - set(self.parts)
        assert len(left) <= self.unswept + self.failures  # unlinks that failed are done at the next occasion

    @invariant()
    def what_is_kept_in_memory_is_what_the_disk_holds(self) -> None:
        if not hasattr(self, "spool"):
            return
        file = self.folder / "spool" / "index.sqlite3"
        with self.spool._transactions.reading() as index, closing(connect(file)) as database:
            disk = Index(database)
            assert (index.epoch, index.next_seq) == (disk.epoch, disk.next_seq)
            assert (index.positions(), index.reached()) == (disk.positions(), disk.reached())
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
