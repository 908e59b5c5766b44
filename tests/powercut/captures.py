"""Drives the capture of two buses, and checks after a power cut that every frame is durable or named in the ledger.

An agent starts as in production.  Rings are opened and noted at the very start, unless an earlier process has left
them.  Then the spool is opened, the run is recorded, and frames are read from where the campaigns need them.  The agent
may be killed at any of these steps, stopped, or replaced by another agent (a reload).  A power cut closes the rings.
"""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.sources.kept_rings import new_ring_id
from agent.system import durable
from agent.telemetry.collect.holdings import Holdings
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Fragment, SealedBatch
from agent.telemetry.spool.listening import Listening, ListeningNote
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.spool import Spool
from tests.agent.sources.test_ring_layout import classic
from tests.powercut.rings import Memory, Source
from tests.powercut.spools import NOW

BUSES = ("can0", "can1")
CAMPAIGNS = ("short", "long")
BEGAN_US = 1_700_000_000_000_000
NewId = Callable[[], str]


@dataclass(frozen=True)
class Frame:
    bus: str
    number: int
    t_us: int


@dataclass(frozen=True)
class CaptureState:
    """The frames that rings have captured for a run or start that the disk knows, and the time of the last of them."""

    owed: frozenset[Frame]
    now_us: int


@dataclass
class Open:
    """What one campaign has collected in its open window; `stored` of the frames are in checkpoints."""

    window: str
    frames: list[Frame] = field(default_factory=list)
    stored: int = 0
    checkpoints: int = 0


class Agent:
    """Collects from rings into a spool until it is killed or stopped."""

    def __init__(
        self, root: Path, rings: dict[str, Memory], chance: random.Random, *, since_us: int, now_us: int
    ) -> None:
        self._chance = chance
        self.spool = open_spool(root)
        self.sources = [Source(bus, ring) for bus, ring in rings.items()]
        self._holdings = Holdings(self.sources, self.spool.resume_points())
        self.spool.begin_run(
            {s.buses[0]: s.held_in for s in self.sources}, since_us=since_us, now_us=now_us, trusted=True
        )
        self.spool.writer.collect(CAMPAIGNS, now_us)
        self._holdings.put_in_force(CAMPAIGNS)
        self._open = {campaign: self._new_window() for campaign in CAMPAIGNS}
        self._end_us = 0

    def _new_window(self) -> Open:
        return Open(f"{self._chance.getrandbits(128):032x}")

    def read(self, source: Source) -> None:
        block = source.read()
        if block is None:
            return
        self._holdings.take(block)
        self._end_us = max(self._end_us, int(block.t_ns.max()) // 1_000 + 1)
        for campaign, window in self._open.items():
            for part in self._holdings.missing(campaign, [block]):
                times = (part.t_ns // 1_000).tolist()
                window.frames += [Frame(part.buses[0], *row) for row in zip(part.can_id.tolist(), times, strict=True)]

    def checkpoint(self) -> None:
        batches = []
        for campaign, window in self._open.items():
            if fresh := window.frames[window.stored :]:
                window.checkpoints += 1
                id_ = BatchId(window.window, window.checkpoints)
                batches.append(self._batch(id_, campaign, fresh, waits=True))
                window.stored = len(window.frames)
        if batches:
            self._append(batches, self._holdings.resume_points(CAMPAIGNS))
            for campaign in CAMPAIGNS:
                self._holdings.close(campaign)
        self._holdings.release(CAMPAIGNS)

    def close_window(self, campaign: str) -> None:
        window, points = self._open[campaign], self._holdings.close(campaign)
        if window.frames:
            (id_,) = self.spool.writer.next_ids(1)
            self._append([self._batch(id_, campaign, window.frames, fragment=Fragment(window.window, 1, 1))], points)
            self._open[campaign] = self._new_window()
        self._holdings.release(CAMPAIGNS)

    def stop(self, *, reloads_at_us: int | None = None) -> None:
        """Store everything and end.  After a reload, another agent of this process goes on with the rings."""
        for source in self.sources:
            self.read(source)
        for campaign in CAMPAIGNS:
            self.close_window(campaign)
        captured = {} if reloads_at_us is None else {source.buses[0]: source.held_in for source in self.sources}
        self.spool.end_run(captured=captured, since_us=reloads_at_us)
        self.kill()

    def kill(self) -> None:
        self.spool.close()
        for source in self.sources:
            source.close()

    def _append(self, batches: list[SealedBatch], points: dict[str, int]) -> None:
        self.spool.writer.append(batches, token=f"{self._chance.getrandbits(64):x}", resume_points=points)

    def _batch(self, id_: BatchId, campaign: str, frames: Iterable[Frame], **more: Any) -> SealedBatch:
        content = json.dumps([campaign, [(f.bus, f.number, f.t_us) for f in frames]]).encode()
        return SealedBatch(id_, Lane.LIVE, 0, content, campaign, 1, 1, self._end_us, **more)


class Drive:
    def __init__(self, root: Path, chance: random.Random, ids: NewId, promise: Callable[[CaptureState], None]) -> None:
        self.root = root
        self.chance = chance
        self.ids = ids
        self.promise = promise
        self.rings: dict[str, Memory] = {}
        self.agent: Agent | None = None
        self.now_us = BEGAN_US
        self.capturing = False  # whether the disk knows a run that has not ended well, or a start
        self.captured: set[Frame] = set()
        self.owed: set[Frame] = set()

    def frames(self) -> None:
        """Let frames arrive.  The kernel drops a frame if its ring has no room, and counts it as a loss of the bus."""
        for _ in range(self.chance.randrange(1, 9)):
            self.now_us += self.chance.randrange(1, 100_000)
            bus = self.chance.choice(BUSES)
            if (ring := self.rings.get(bus)) is not None:
                number, sent = len(self.captured) + 1, len(ring.kernel.sent)
                seconds, us = divmod(self.now_us, 1_000_000)
                ring.kernel.receive(classic(number, b""), seconds, us * 1_000)
                if len(ring.kernel.sent) > sent:
                    self.captured.add(Frame(bus, number, self.now_us))
        if self.capturing:
            self.owe()

    def owe(self) -> None:
        self.owed = set(self.captured)
        self.promise(CaptureState(frozenset(self.owed), self.now_us))

    def start(self) -> None:
        since_us = self.now_us
        for bus in BUSES:
            if bus not in self.rings:
                self.rings[bus] = Memory(self.ids())
        ListeningNote(self.root / "state" / "spool", durable.current()).add(
            Listening(bus, ring.ring_id, since_us) for bus, ring in self.rings.items()
        )
        self.capturing = True
        self.frames()
        if self.chance.random() < 0.3:
            return  # the agent is killed before the spool is opened
        self.begin(since_us)

    def begin(self, since_us: int) -> None:
        self.agent = Agent(self.root, self.rings, self.chance, since_us=since_us, now_us=self.now_us)
        self.owe()

    def act(self) -> None:
        agent = self.agent
        match self.chance.randrange(10):
            case _ if agent is None:
                self.start()
            case 0 | 1:
                self.frames()
            case 2 | 3 | 4:
                agent.read(self.chance.choice(agent.sources))
                self.frames()
            case 5 | 6:
                agent.checkpoint()
            case 7:
                agent.close_window(self.chance.choice(CAMPAIGNS))
            case 8:
                agent.kill()
                self.agent = None
                self.frames()
            case _ if self.chance.random() < 0.3:
                agent.stop()
                self.agent, self.capturing = None, False
                self.frames()
            case _ if self.chance.random() < 0.3:
                since_us = self.now_us
                agent.stop(reloads_at_us=since_us)
                self.frames()
                self.begin(since_us)


def open_spool(root: Path) -> Spool:
    return Spool(root / "state" / "spool", Limits.of(10**7, 1e9, 0), clock=lambda: NOW)


def drive_captures(
    root: Path, chance: random.Random, promise: Callable[[CaptureState], None], ids: NewId = new_ring_id
) -> None:
    drive = Drive(root, chance, ids, promise)
    for _ in range(chance.randrange(10, 40)):
        drive.act()
    if drive.agent is not None:
        drive.agent.kill()
    for ring in drive.rings.values():
        ring.cut()


def check_captures(
    root: Path, before: CaptureState | None, after: CaptureState | None, ids: NewId = new_ring_id
) -> None:
    """Start an agent with new rings, and check that the spool or the ledger has every frame for every campaign."""
    rings = {bus: Memory(ids()) for bus in BUSES}
    began_us = max([state.now_us for state in (before, after) if state is not None], default=BEGAN_US)
    if before is not None and len(before.owed) % 3 == 0:
        began_us = 20_000_000  # the clock has begun in 1970, and is not set yet
    agent = Agent(root, rings, random.Random(0), since_us=began_us, now_us=began_us)
    try:
        found: dict[str, list[Frame]] = {campaign: [] for campaign in CAMPAIGNS}
        for entry in agent.spool.reader.pending(10**6, exclude=(), lanes=tuple(Lane)):
            content = agent.spool.reader.read(entry)
            assert content is not None, "a batch is missing or damaged"
            campaign, rows = json.loads(content)
            found[campaign] += [Frame(*row) for row in rows]
        with agent.spool._transactions.reading() as index:
            losses = [loss for loss in index.ledger.all() if loss.reason is Reason.OPEN_WINDOW]
        for campaign, frames in found.items():
            assert len(frames) == len(set(frames)), f"campaign {campaign} has a frame twice"
            missing = (set() if before is None else before.owed) - set(frames)
            unnamed = [frame for frame in missing if not any(names(loss, campaign, frame) for loss in losses)]
            assert not unnamed, f"campaign {campaign} lacks {unnamed[0]}, which the ledger does not name"
    finally:
        agent.kill()
        for ring in rings.values():
            ring.cut()


def names(loss: Loss, campaign: str, frame: Frame) -> bool:
    """Return whether `loss` says that `campaign` may lack `frame`."""
    assert loss.first_t_us is not None
    assert loss.last_t_us is None or loss.first_t_us < loss.last_t_us, "the interval of a loss is empty"
    within = loss.first_t_us <= frame.t_us and (loss.last_t_us is None or frame.t_us <= loss.last_t_us)
    return within and loss.campaign in {"", campaign} and loss.bus == frame.bus
