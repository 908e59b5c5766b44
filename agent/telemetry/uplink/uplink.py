"""The uplink: carries batches from the spool over one connection until they are acknowledged.  Touches the world.

Invariant: a batch leaves the spool only on a verified acknowledgement of the fleet's receiver (`ack = "receiver"`),
or on a PUBACK below 0x80 other than 0x10, "no matching subscribers" (`ack = "broker"`).  What to send, and when, is
decided by `schedule` beside this file, and which lanes may use the link by `link_gate`; this file reads, publishes,
and tells them what happened.

Whatever touches the disk goes to a thread by the group: all batches that the window has room for are read in one go,
and while one transaction forgets batches that the broker took, the next ones gather for the one after it.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.errors import Transient, Untrusted
from agent.formats import topics
from agent.formats.topics import Lane
from agent.formats.up.acks import Ack, verify_ack
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS, Connection, PublishRefused
from agent.telemetry.spool.spool import Entry, Spool
from agent.telemetry.uplink.ahead import AHEAD, KINDS, Ahead, Kind
from agent.telemetry.uplink.bucket import TokenBucket
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.schedule import Pace, Schedule
from agent.telemetry.uplink.unanswered import Key, Unanswered

GATHER_S: Final = 0.05  # so long at most is sent again, where the process dies
AckMode = Literal["receiver", "broker"]
_log = structlog.get_logger()


@dataclass(slots=True)
class UplinkCounts:
    """Running totals since the start of the process.

    `published` and `published_bytes` count every sending that the broker accepted, `resent` those of batches whose
    acknowledgement was overdue; `acknowledged` and `refused` the batches that left the spool, and why; `supplied` the
    catalogues that the receiver asked for; `publish_refused` what the broker refused; `publish_unheard` what it took
    for nobody (`ack = "broker"`: the batch stays); `untrusted_acks` what was forged, malformed or another vehicle's.
    """

    published: int = 0
    published_bytes: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    supplied: int = 0
    publish_refused: int = 0
    publish_unheard: int = 0
    untrusted_acks: int = 0


class Uplink:
    """One vehicle's uplink.

    `run` it for each connection, one at a time, and hand `handle_ack` each message of the ack topic.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        vehicle: str,
        partition: int,
        acks_key: Ed25519PublicKey,
        ack: AckMode,
        pace: Pace,
        gate: LinkGate,
        backlog_bytes_s: float = 0,
        publish_timeout_s: float = 30.0,
        clock_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`backlog_bytes_s`: how fast the backlog may drain; 0: as fast as it can."""
        self._spool = spool
        self._vehicle = vehicle
        self._partition = partition
        self._acks_key = acks_key
        self._ack = ack
        self._pace = pace
        self._publish_timeout_s = publish_timeout_s
        self._clock_s = clock_s
        self._jitter = jitter
        self._wake = asyncio.Event()
        self._gate = gate
        self._bucket = TokenBucket(backlog_bytes_s)
        self._unanswered = Unanswered()
        self._schedule = Schedule(pace, self._bucket, self._unanswered)
        self._ahead = Ahead()
        self._contents: dict[Key, bytes | Transient | None] = {}  # read ahead
        self._sending: set[asyncio.Future[int]] = set()
        self._lost: BaseException | None = None  # why the connection is
        self._taken: dict[Key, Entry] = {}  # by the broker (`ack = "broker"`), to be forgotten
        self._has_taken = asyncio.Event()
        self._is_idle = asyncio.Event()  # the link carries nothing
        self.counts = UplinkCounts()

    async def run(self, connection: Connection) -> None:
        """Send until cancelled, or until the connection is lost: raises Transient then.

        What was sent over an earlier connection and not acknowledged is sent again.
        """
        await self._gate.look(connection.own_address)
        pace = replace(self._pace, receive_maximum=connection.limits.receive_maximum)
        schedule = self._schedule = Schedule(pace, self._bucket, self._unanswered)
        loop = asyncio.get_running_loop()
        self._renew()
        self._spool.on_append = lambda: _call_soon(loop, self._stored)
        self._lost = None
        beside = {
            asyncio.create_task(self._gate.watch(connection.own_address, self._wake.set), name="watch link"),
            asyncio.create_task(self._forget_taken(schedule), name="forget taken"),
            asyncio.create_task(self._sweep(), name="sweep"),
        }
        for task in beside:
            task.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                self._wake.clear()
                if self._lost is not None:
                    raise self._lost
                _raise_failure(beside)
                for digest in schedule.take_wanted(self._clock_s()):
                    await self._supply(connection, schedule, digest)
                now_s, lanes = self._clock_s(), self._gate.lanes()
                for entry, content in await self._read(schedule, await self._choose(schedule, lanes, now_s)):
                    self._gate.sent(entry.size_bytes)
                    self._send(connection, schedule, entry, content)
                if not self._sending:
                    self._is_idle.set()
                await self._wait(schedule.wake_at_s(lanes, now_s))
        finally:
            self._spool.on_append = None
            for answer in self._sending:
                answer.cancel()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    def status(self) -> dict[str, Any]:
        """For `/status`: the running totals, how many batches are set aside unanswered, and what the link allows."""
        return {**asdict(self.counts), "set_aside": self._unanswered.set_aside, **self._gate.status()}

    async def handle_ack(self, payload: bytes) -> None:
        """Take an acknowledgement in.  One that is forged or not ours is counted and changes nothing."""
        try:
            ack = verify_ack(payload, self._acks_key)
            if ack.vehicle != self._vehicle:
                raise Untrusted(f"acknowledgement is for vehicle {ack.vehicle}, this one is {self._vehicle}")
        except Untrusted as error:
            self._count(untrusted_acks=1)
            if self.counts.untrusted_acks.bit_count() == 1:  # 1, 2, 4, 8 …: a flood must not flood the journal
                _log.warning("ack_untrusted", reason=str(error), times=self.counts.untrusted_acks)
            return
        try:
            await self._settle(ack)
        except Transient as error:  # the batches stay, are sent again, and acknowledged again
            _log.warning("ack_not_recorded", reason=str(error))

    async def _settle(self, ack: Ack) -> None:
        forgotten = await asyncio.to_thread(self._spool.acknowledge, ack.epoch, ack.stored)
        self._count(acknowledged=forgotten)
        refused: list[int] = []
        if ack.refused:
            refused = await asyncio.to_thread(self._spool.refuse, ack.epoch, ack.refused)
        if refused:
            self._count(refused=len(refused))
            reasons = sorted({ack.refused[seq].reason for seq in refused})
            _log.warning("batches_refused_by_receiver", batches=len(refused), reasons=reasons)
        keys = [(ack.epoch, seq) for seq in (*ack.stored, *refused)]
        self._schedule.acknowledged(keys, self._clock_s())
        for digest, seqs in ack.wanted.items():
            self._schedule.want(digest, [(ack.epoch, seq) for seq in seqs], self._clock_s())
        self._wake.set()

    async def _choose(self, schedule: Schedule, allowed: Sequence[Lane], now_s: float) -> list[Entry]:
        new, topics_open = schedule.new_lanes(allowed, now_s), schedule.lanes(now_s)
        kinds = {lane: [kind for kind in KINDS[lane] if kind.lane in topics_open] for lane in new}
        room, ahead = schedule.room(), self._ahead  # not one that is made meanwhile
        busy = schedule.busy(now_s) | self._taken.keys()
        lacking = [kind for of in kinds.values() for kind in of if ahead.lacks(kind, room, busy, now_s)]
        if lacking:
            try:
                for kind, entries in (await asyncio.to_thread(self._find, lacking, busy)).items():
                    ahead.put(kind, entries, now_s)
            except Transient as error:
                waits = [schedule.pause(lane, now_s, self._jitter()) for lane in topics_open]
                _log.warning("spool_not_readable", reason=str(error), wait_s=round(max(waits), 1))
                return []
        waiting: dict[Lane, list[Entry]] = {}
        for lane, of in kinds.items():
            waiting[lane] = [entry for kind in of for entry in ahead.get(kind, room, busy)]
            busy = busy | {entry.key for entry in waiting[lane]}  # what was backlog may be among the newest meanwhile
        chosen = schedule.choose(waiting, allowed, now_s)
        ahead.sent(entry.key for entry, _ in chosen)
        self._count(resent=sum(again for _, again in chosen))
        return [entry for entry, _ in chosen]

    def _find(self, kinds: Sequence[Kind], busy: Set[Key]) -> dict[Kind, list[Entry]]:
        return {kind: self._spool.pending(AHEAD, exclude=busy, lanes=(kind.lane,), fresh=kind.fresh) for kind in kinds}

    async def _read(self, schedule: Schedule, entries: Sequence[Entry]) -> list[tuple[Entry, bytes]]:
        """The bytes of those that can be read, in their order; the others are put off, or forgotten where gone."""
        contents = self._contents
        if any(entry.key not in contents for entry in entries):
            missing = [entry for entry in (*entries, *self._next()) if entry.key not in contents]
            contents.update(await asyncio.to_thread(self._contents_of, missing))
        found: list[tuple[Entry, bytes]] = []
        for entry in entries:
            content = contents.pop(entry.key)
            if isinstance(content, Transient):
                self._postpone(schedule, entry, content)
            elif content is None:
                schedule.forget(entry.key)
            else:
                found.append((entry, content))
        return found

    def _next(self) -> Iterator[Entry]:
        """What is sent next: it is read along, for each reading costs a thread its turn."""
        left = self._pace.unconfirmed_bytes // 2
        for entry in self._ahead:
            left -= entry.size_bytes
            if left < 0:
                return
            yield entry

    def _contents_of(self, entries: Sequence[Entry]) -> dict[Key, bytes | Transient | None]:
        contents: dict[Key, bytes | Transient | None] = {}
        for entry in entries:
            try:
                contents[entry.key] = self._spool.read(entry)
            except Transient as error:
                contents[entry.key] = error
        return contents

    def _send(self, connection: Connection, schedule: Schedule, entry: Entry, content: bytes) -> None:
        topic = topics.up(self._partition, self._vehicle, entry.lane)
        answer = connection.publish(topic, content, self._publish_timeout_s)
        self._sending.add(answer)
        answer.add_done_callback(partial(self._answered, schedule, entry, topic))

    def _answered(self, schedule: Schedule, entry: Entry, topic: str, answer: "asyncio.Future[int]") -> None:
        """What the broker said to a batch."""
        self._sending.discard(answer)
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, PublishRefused):
            self._count(publish_refused=1)
            wait_s = schedule.refused(entry, error.reason, self._clock_s(), self._jitter())
            _log.warning("publish_refused", reason=str(error), seq=entry.seq, wait_s=round(wait_s, 1))
        elif error is not None:
            self._lost = error
            self._wake.set()
        elif self._ack == "broker" and answer.result() == NO_MATCHING_SUBSCRIBERS:  # it forgets the message at once
            self._count(publish_unheard=1)
            schedule.forget(entry.key)
            wait_s = schedule.pause(entry.lane, self._clock_s(), self._jitter())
            _log.warning("publish_unheard", topic=topic, seq=entry.seq, wait_s=round(wait_s, 1))
        else:
            self.counts.published += 1
            self.counts.published_bytes += entry.size_bytes
            if self._ack == "broker":
                self._taken[entry.key] = entry
                self._has_taken.set()
                schedule.acknowledged([entry.key], self._clock_s())
            else:
                schedule.published(entry, self._clock_s())
        if schedule.is_hungry:  # not each time: a look for one batch costs as much as for several
            self._wake.set()

    async def _forget_taken(self, schedule: Schedule) -> None:
        """Forget what the broker took, all that gathered meanwhile in one transaction.  Runs until cancelled."""
        self._has_taken.set()  # what an earlier connection may have left
        while True:
            await self._has_taken.wait()
            await asyncio.sleep(GATHER_S)
            self._has_taken.clear()
            taken = list(self._taken.values())
            try:
                self._count(acknowledged=await asyncio.to_thread(self._forget, taken))
            except Transient as error:  # send no more, which would have to be remembered until the disk takes it
                waits = [schedule.pause(lane, self._clock_s(), self._jitter()) for lane in Lane]
                _log.warning("batches_not_forgotten", reason=str(error), wait_s=round(max(waits), 1))
                await asyncio.sleep(max(waits))
                self._has_taken.set()
                continue
            for entry in taken:
                del self._taken[entry.key]
            self._wake.set()

    async def _sweep(self) -> None:
        """Remove the files of batches that are forgotten whenever the link is idle.  Runs until cancelled."""
        while True:
            await self._is_idle.wait()
            self._is_idle.clear()
            if self._spool.unswept:
                await asyncio.to_thread(self._spool.sweep)

    def _forget(self, taken: Sequence[Entry]) -> int:
        epochs: dict[str, list[int]] = {}
        for entry in taken:
            epochs.setdefault(entry.epoch, []).append(entry.seq)
        return sum(self._spool.acknowledge(epoch, seqs, end_to_end=False) for epoch, seqs in epochs.items())

    async def _supply(self, connection: Connection, schedule: Schedule, digest: bytes) -> None:
        """Send a catalogue that the receiver lacks; where it is lost, nobody can read what refers to it."""
        try:
            content = await asyncio.to_thread(self._spool.catalogue, digest)
            if content is None:
                await self._give_up_unreadable(schedule, digest)
                return
        except Transient as error:
            _log.warning("catalogue_postponed", reason=str(error), catalogue=digest.hex())
            return
        topic = topics.up(self._partition, self._vehicle, Lane.EVENTS)
        try:
            await connection.publish(topic, content, self._publish_timeout_s)
        except PublishRefused as error:
            self._count(publish_refused=1)
            wait_s = schedule.pause(Lane.EVENTS, self._clock_s(), self._jitter())
            _log.warning("publish_refused", reason=str(error), catalogue=digest.hex(), wait_s=round(wait_s, 1))
            return
        self._count(published=1, published_bytes=len(content), supplied=1)
        schedule.supplied(digest, self._clock_s())

    async def _give_up_unreadable(self, schedule: Schedule, digest: bytes) -> None:
        keys = schedule.waiting_for(digest)
        for epoch in {epoch for epoch, _ in keys}:
            seqs = [seq for of, seq in keys if of == epoch]
            lost = await asyncio.to_thread(self._spool.give_up_unreadable, epoch, seqs, digest)
            _log.error("batches_unreadable", batches=lost, catalogue=digest.hex())
        for key in keys:
            schedule.forget(key)

    def _postpone(self, schedule: Schedule, entry: Entry, error: Transient) -> None:
        schedule.forget(entry.key)
        wait_s = schedule.pause(entry.lane, self._clock_s(), self._jitter())
        _log.warning("batch_postponed", reason=str(error), seq=entry.seq, wait_s=round(wait_s, 1))

    def _stored(self) -> None:
        self._renew()
        self._wake.set()

    def _renew(self) -> None:
        """Forget what was found and read ahead, also what is being looked for."""
        self._ahead, self._contents = Ahead(), {}

    async def _wait(self, wake_at_s: float | None) -> None:
        try:
            async with asyncio.timeout(None if wake_at_s is None else max(0.0, wake_at_s - self._clock_s())):
                await self._wake.wait()
        except TimeoutError:
            self._renew()  # what was held back may be sent now

    def _count(self, **added: int) -> None:
        for name, number in added.items():
            setattr(self.counts, name, getattr(self.counts, name) + number)


def _raise_failure(tasks: set[asyncio.Task[None]]) -> None:
    """Raise what one of them failed with; they end in no other way."""
    for task in tasks:
        if task.done():
            task.result()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
        loop.call_soon_threadsafe(callback)
