"""The receiver: MQTT on one side, the store on the other, two queues with limits between them.

    link      connects for ever, and puts what arrives into the queues
    pipeline  collects a group, stores it (fleet.receiving.store), and sends the acknowledgements
    answers   answers vehicles that ask what is new (fleet.publishing.sync)

Invariant: nothing is dropped between broker and store.  A full queue stops the link from taking more, and MQTT's
Receive Maximum then stops the broker.  The pipeline outlives connections: a group that was begun is stored whether the
broker is there or not, and a vehicle that missed its acknowledgement sends again and gets another.
"""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Final, TypeVar

import structlog

from agent.errors import Permanent, Transient, ungrouped
from agent.formats import topics
from agent.link.mqtt import Connection, Endpoint, PublishRefused, connect
from agent.link.session import Backoff, Event, Session
from fleet.publishing import sync
from fleet.receiving.message import Message
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder

T = TypeVar("T")

# A group closes at the first of these limits.  A commit costs some 60 ms however small it is, and a vehicle waits for
# its acknowledgement meanwhile.
GROUP_MESSAGES: Final = 200
GROUP_BYTES: Final = 2 * 1024 * 1024
GROUP_S: Final = 0.2

# The next group may fill while one is stored; more would only take memory from a broker that keeps messages anyway.
QUEUE_MESSAGES: Final = GROUP_MESSAGES
SYNC_QUEUE_MESSAGES: Final = 100

# Broker and lake belong to the fleet and are near, so they are tried more often than a vehicle tries its broker.
RETRY: Final = Backoff(floor_s=0.2, base_s=0.5, cap_s=10.0, stable_s=5.0)

_log = structlog.get_logger()


def endpoint_of(fleet: FleetFolder, host: str, port: int, share: Share) -> Endpoint:
    """Return the broker's address with the receiver's side of mutual TLS."""
    # A new client id each time: the broker ends a connection when another client comes with the same id.
    return Endpoint(
        host=host,
        port=port,
        ca_file=fleet.ca_certificate,
        cert_file=fleet.receiver_certificate,
        key_file=fleet.receiver_key,
        client_id=f"receiver-{share}-{token_hex(4)}",
    )


class Receiver:
    """Receives the batches of `share` from the broker at `endpoint` into `store`, until it is told to stop."""

    def __init__(self, fleet: FleetFolder, endpoint: Endpoint, share: Share, store: Store) -> None:
        self._fleet = fleet
        self._endpoint = endpoint
        self._share = share
        self._store = store
        self._batches: asyncio.Queue[Message] = asyncio.Queue(QUEUE_MESSAGES)
        self._requests: asyncio.Queue[Message] = asyncio.Queue(SYNC_QUEUE_MESSAGES)
        self._connection: Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set; the group that was begun by then is stored and acknowledged.

        Raises: Permanent where files of the fleet folder are at fault; Transient where `stop` came while the lake
        refused.
        """
        with ungrouped():
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._link(), name="link"),
                    tasks.create_task(self._answer_requests(), name="answers"),
                ]
                # The pipeline decides when the receiver ends. The other two run for ever, so they are cancelled.
                await self._pipeline(stop)
                for task in helpers:
                    task.cancel()

    # ---------------------------------------------------------------- link

    async def _link(self) -> None:
        session = self._after(Session(RETRY), Event.START)
        while True:
            try:
                async with connect(self._endpoint) as connection:
                    await connection.subscribe([*self._share.filters(), topics.ALL_SYNC])
                    session = self._after(session, Event.CONNECTED)
                    _log.info("broker_connected", broker=str(self._endpoint), partitions=str(self._share))
                    self._connection = connection
                    async for topic, payload in connection.messages():
                        await self._route(Message(topic, payload))
            except Transient as error:
                online = self._connection is not None
                # Once for each outage, not once for each attempt.
                if online or session.failures == 0:
                    _log.warning("broker_lost" if online else "broker_unreachable", reason=str(error))
                session = self._after(session, Event.LOST if online else Event.FAILED)
            finally:
                self._connection = None
            await asyncio.sleep(session.wait_s(time.monotonic()))
            session = self._after(session, Event.WAITED)

    async def _route(self, message: Message) -> None:
        # A full queue makes this wait, and then the link takes no more messages.
        if message.topic.startswith(f"{topics.ROOT}/sync/"):
            await self._requests.put(message)
        else:
            await self._batches.put(message)

    def _after(self, session: Session, event: Event) -> Session:
        return session.after(event, now_s=time.monotonic(), jitter=random.random())  # noqa: S311 (jitter)

    # ---------------------------------------------------------------- pipeline

    async def _pipeline(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            # Commits of earlier processes come first, because a table with a later number counts as having theirs.
            await self._until_it_works(self._store.recover, stopping)
            while not stopping.done():
                collecting = asyncio.create_task(self._collect(), name="collect")
                await asyncio.wait({collecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not collecting.done():
                    # The messages collected so far are not acknowledged, so vehicles send them again.
                    collecting.cancel()
                    return
                group = collecting.result()
                while group:
                    take_in = functools.partial(self._store.take_in, group)
                    taken = await self._until_it_works(take_in, stopping)
                    await self._send(await self._until_it_works(self._store.land, stopping))
                    # A commit is bounded by its samples, so a group may need several.
                    group = group[taken:]
        finally:
            stopping.cancel()

    async def _collect(self) -> list[Message]:
        """Return the next group: wait for its first message, then GROUP_S for more."""
        group = [await self._batches.get()]
        size = len(group[0].payload)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GROUP_S):
                while len(group) < GROUP_MESSAGES and size < GROUP_BYTES:
                    group.append(await self._batches.get())
                    size += len(group[-1].payload)
        return group

    async def _until_it_works(self, step: Callable[[], T], stopping: "asyncio.Task[bool]") -> T:
        """Run `step` in a thread until disk and lake allow it.  Raises: Transient where `stopping` ends first."""
        failures = 0
        while True:
            try:
                result = await asyncio.to_thread(step)
            except Transient as error:
                failures += 1
                if failures == 1:
                    _log.error("store_unavailable", reason=str(error))
                pause_s = RETRY.wait_s(failures, random.random())  # noqa: S311 (jitter)
                await asyncio.wait({stopping}, timeout=pause_s)
                if stopping.done():
                    raise
            else:
                if failures:
                    _log.info("store_available", attempts=failures + 1)
                return result

    async def _send(self, answers: Sequence[Message]) -> None:
        """Send acknowledgements if the broker is there; a vehicle that misses one sends its batches again."""
        if (connection := self._connection) is not None and answers:
            await asyncio.gather(*(self._publish(connection, answer) for answer in answers))

    async def _publish(self, connection: Connection, answer: Message) -> None:
        try:
            await connection.publish(answer.topic, answer.payload)
        except PublishRefused as error:
            _log.error("acknowledgement_refused", topic=answer.topic, reason=str(error))
        except Transient:
            # The link reports that the connection is lost, and the vehicle sends its batches again.
            pass

    # ---------------------------------------------------------------- answers

    async def _answer_requests(self) -> None:
        while True:
            request = await self._requests.get()
            connection = self._connection
            # A vehicle that gets no answer asks again.
            if connection is None:
                continue
            try:
                await sync.answer(connection, request.topic, request.payload, self._fleet)
            except Transient:
                continue
            except Permanent as error:
                # A repository that is being restored must not stop telemetry.
                _log.error("sync_failed", topic=request.topic, reason=str(error))
