"""Sends over one connection: looks up the batches that the schedule asks for, publishes them, and reports the answers.

A `Sending` lives as long as its connection.  It touches the disk only in threads.  It handles several batches at a
time, because starting work in a thread costs more than handling a second batch.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import partial

import structlog

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.acks import Ack
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS, Connection, PublishRefused
from agent.telemetry.spool.batch import Entry
from agent.telemetry.uplink.removal import Removal
from agent.telemetry.uplink.schedule import Pace, Schedule
from agent.telemetry.uplink.standing import Standing
from agent.telemetry.uplink.turns import LANES, POLICY, Supply, Turn
from agent.telemetry.uplink.unanswered import Key

_log = structlog.get_logger()


class Sending:
    """Sends over one connection.

    Call `run`, and pass each acknowledgement to `settle` once the spool has recorded it.
    """

    def __init__(self, standing: Standing, connection: Connection) -> None:
        self._standing = standing
        self._connection = connection
        self._schedule = Schedule(self._pace(), standing.bucket, standing.unanswered)
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Future[int]] = set()
        self._lost: BaseException | None = None  # the error that ended the connection
        self._removal = Removal(
            standing, self._wake.set, lambda error: self._pause("batches_not_forgotten", error, LANES)
        )

    def set_pace(self) -> None:
        """Send by the pace that `standing` has now, and look at once what may be sent."""
        self._schedule.set_pace(self._pace())
        self._wake.set()

    def _pace(self) -> Pace:
        return replace(self._standing.pace, receive_maximum=self._connection.limits.receive_maximum)

    async def run(self) -> None:
        """Send until cancelled.  Raises Transient if the connection is lost."""
        standing, schedule = self._standing, self._schedule
        loop = asyncio.get_running_loop()
        standing.spool.on_append = lambda: _call_soon(loop, self._wake.set)
        beside = {
            asyncio.create_task(standing.gate.watch(self._connection.own_address, self._wake.set), name="watch link"),
            asyncio.create_task(self._removal.forget_taken(), name="forget taken"),
            asyncio.create_task(self._removal.record_late(), name="record late answers"),
        }
        for task in beside:
            task.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                # The event is cleared before the state is read, so that each later change causes another round.
                self._wake.clear()
                if self._lost is not None:
                    raise self._lost
                _raise_failure(beside)
                for digest in schedule.take_wanted(standing.clock_s()):
                    await self._supply(digest)
                now_s, lanes = standing.clock_s(), standing.gate.lanes()
                for entry, content in await self._read(await self._choose(lanes, now_s)):
                    standing.gate.sent(entry.size_bytes)
                    self._send(entry, content)
                await self._wait(schedule.wake_at_s(lanes, now_s))
        finally:
            standing.spool.on_append = None
            for answer in self._under_way:
                answer.cancel()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    def settle(self, ack: Ack, left: Sequence[int]) -> None:
        """Note an acknowledgement that the spool has recorded.

        `left` has the sequence numbers of the batches that left the spool because of this acknowledgement.
        """
        now_s, schedule = self._standing.clock_s(), self._schedule
        # A batch may have left the spool in another way, for example by eviction, while it was in flight.
        answered = {*schedule.outstanding.named_by(ack.epoch, ack.stored), *((ack.epoch, seq) for seq in left)}
        schedule.acknowledged(sorted(answered), now_s)
        for digest, batches in ack.wanted.items():
            schedule.want(digest, schedule.outstanding.named_by(ack.epoch, batches), now_s)
        self._wake.set()

    def sent_as(self, ack: Ack) -> list[Key]:
        """Return the ids of the sent batches that `ack` names as stored, with exactly their digests."""
        return self._schedule.outstanding.named_by(ack.epoch, ack.stored)

    # ---- batches

    async def _choose(self, allowed: Sequence[Lane], now_s: float) -> list[Entry]:
        schedule = self._schedule
        topics_open = schedule.pauses.open_lanes(now_s)
        supplies = {
            turn: [supply for supply in POLICY[turn].supplies if supply.lane in topics_open]
            for turn in schedule.new_turns(allowed, now_s)
        }
        waiting: dict[Turn, list[Entry]] = {}
        room = schedule.room()
        if room and any(supplies.values()):
            busy = schedule.busy(now_s) | self._standing.taken.keys() | self._standing.late.keys
            try:
                waiting = await asyncio.to_thread(self._find, supplies, room, busy)
            except Transient as error:
                self._pause("spool_not_readable", error, topics_open)
                return []
        chosen = schedule.choose(waiting, allowed, now_s)
        self._standing.counts.resent += sum(again for _, again in chosen)
        return [entry for entry, _ in chosen]

    def _find(self, supplies: dict[Turn, list[Supply]], room: int, busy: Set[Key]) -> dict[Turn, list[Entry]]:
        """Return up to `room` stored batches of each kind.

        Batches in `busy` are left out.  Blocks on the disk; raises Transient.
        """
        found: dict[Turn, list[Entry]] = {}
        for turn, sources in supplies.items():
            entries: list[Entry] = []
            for lane, fresh in sources:
                if len(entries) < room:
                    limit = room - len(entries)
                    entries += self._standing.spool.pending(limit, exclude=busy, lanes=(lane,), fresh=fresh)
            found[turn] = entries
            # A batch may stop being fresh between two queries, but it must not be found twice.
            busy = busy | {entry.key for entry in entries}
        return found

    async def _read(self, entries: Sequence[Entry]) -> list[tuple[Entry, bytes]]:
        """Return the readable batches with their contents, in the same order.

        A batch that cannot be read now is postponed.  A batch that is no longer in the spool is forgotten.
        """
        if not entries:
            return []
        found: list[tuple[Entry, bytes]] = []
        for entry, content in await asyncio.to_thread(lambda: list(self._contents_of(entries))):
            if isinstance(content, Transient):
                self._schedule.forget(entry.key)
                self._pause("batch_postponed", content, (entry.lane,))
            elif content is None:
                self._schedule.forget(entry.key)
            else:
                found.append((entry, content))
        return found

    def _contents_of(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes | Transient | None]]:
        for entry in entries:
            try:
                yield entry, self._standing.spool.read(entry)
            except Transient as error:
                yield entry, error

    def _send(self, entry: Entry, content: bytes) -> None:
        standing = self._standing
        topic = standing.route.topic(entry.lane)
        answer = self._connection.publish(topic, content, standing.pace.publish_timeout_s)
        self._under_way.add(answer)
        answer.add_done_callback(partial(self._answered, entry))

    def _answered(self, entry: Entry, answer: "asyncio.Future[int]") -> None:
        """Handle the broker's answer to a batch."""
        self._under_way.discard(answer)
        if answer.cancelled():
            return
        standing, schedule, now_s = self._standing, self._schedule, self._standing.clock_s()
        error = answer.exception()
        if isinstance(error, PublishRefused):
            standing.counts.publish_refused += 1
            wait_s = schedule.refused(entry, error.reason, now_s, standing.jitter())
            _log.warning("publish_refused", reason=str(error), seq=entry.seq, wait_s=round(wait_s, 1))
        elif error is not None:
            self._lost = error
            self._wake.set()
        elif standing.route.ack == "broker" and answer.result() == NO_MATCHING_SUBSCRIBERS:
            # The broker accepted the message and has already dropped it, so it would never be stored.
            standing.counts.publish_unheard += 1
            schedule.forget(entry.key)
            reason = f"No client subscribes to {standing.route.topic(entry.lane)}. Start a program that subscribes."
            self._pause("publish_unheard", reason, (entry.lane,))
        else:
            standing.counts.published += 1
            standing.counts.published_bytes += entry.size_bytes
            if standing.route.ack == "broker":
                self._removal.take(entry)
                schedule.acknowledged([entry.key], now_s)
            else:
                schedule.published(entry, now_s)
        # Not every answer wakes `run`, because looking for one batch costs as much as looking for several.
        if schedule.flights.is_hungry:
            self._wake.set()

    # ---- catalogues

    async def _supply(self, digest: bytes) -> None:
        """Send a catalogue that the receiver lacks.

        If the spool has lost the catalogue, discard the batches that need it.
        """
        standing = self._standing
        try:
            content = await asyncio.to_thread(standing.spool.catalogue, digest)
            if content is None:
                await self._give_up_unreadable(digest)
                return
        except Transient as error:
            _log.warning("catalogue_postponed", reason=str(error), catalogue=digest.hex())
            return
        try:
            await self._connection.publish(standing.route.topic(Lane.EVENTS), content, standing.pace.publish_timeout_s)
        except PublishRefused as error:
            standing.counts.publish_refused += 1
            self._pause("publish_refused", error, (Lane.EVENTS,))
            return
        standing.counts.published += 1
        standing.counts.published_bytes += len(content)
        standing.counts.supplied += 1
        self._schedule.supplied(digest, standing.clock_s())

    async def _give_up_unreadable(self, digest: bytes) -> None:
        keys = self._schedule.requests.waiting_for(digest)
        for epoch in {epoch for epoch, _ in keys}:
            seqs = [seq for of, seq in keys if of == epoch]
            lost = await asyncio.to_thread(self._standing.spool.give_up_unreadable, epoch, seqs, digest)
            _log.error("batches_unreadable", batches=lost, catalogue=digest.hex())
        for key in keys:
            self._schedule.forget(key)

    # ---- waiting

    def _pause(self, event: str, reason: object, lanes: Sequence[Lane]) -> float:
        """Pause these lanes, and log `event` with its reason; return the longest pause in seconds."""
        standing, pauses = self._standing, self._schedule.pauses
        now_s = standing.clock_s()
        is_new = not set(pauses.open_lanes(now_s)).isdisjoint(lanes)
        wait_s = max(pauses.pause(lane, now_s, standing.jitter()) for lane in lanes)
        # A burst of refusals of one kind makes one pause, and so one line of the log.
        if is_new:
            _log.warning(event, reason=str(reason), wait_s=round(wait_s, 1))
        return wait_s

    async def _wait(self, wake_at_s: float | None) -> None:
        timeout_s = None if wake_at_s is None else max(0.0, wake_at_s - self._standing.clock_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()


def _raise_failure(tasks: set[asyncio.Task[None]]) -> None:
    """Raise the error of a failed task.  These tasks end only by an error or by being cancelled."""
    for task in tasks:
        if task.done():
            task.result()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
        loop.call_soon_threadsafe(callback)
