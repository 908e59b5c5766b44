"""The receiver: takes messages from the broker, and passes them to the store through bounded queues.

Six tasks run together:

    link      keeps a connection to the broker, and puts arriving messages into the queues
    pipeline  collects a group of batches, stores it (fleet.receiving.store), and sends the acknowledgements
    answers   answers vehicles that ask for updates (fleet.publishing.sync)
    freshness signs the timestamp of pushes anew before it expires (fleet.publishing.freshness)
    renewals  answers vehicles that ask for a new certificate (fleet.admin.renewal)
    roster    keeps the lake's table of vehicles up to date (fleet.receiving.roster)

Invariant: between broker and store, messages are dropped only if a vehicle sends more than its share
(fleet.receiving.fair_queue).  If the whole queue is full, the link takes no more messages, and MQTT's Receive Maximum
then makes the broker wait.  The pipeline does not depend on the connection: a group that has
arrived is stored even if the broker is gone.  A vehicle that missed its acknowledgement sends the batch again, and gets
a new acknowledgement.
"""

import asyncio
import functools
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final, TypeVar

import structlog

from agent.errors import Permanent, Transient, Untrusted, ungrouped
from agent.formats import topics
from agent.formats.renewal import is_request
from agent.link.mqtt import Connection, Endpoint, PublishRefused, connect
from agent.link.session import Backoff, Event, Session
from fleet.admin.renewal import Renewals
from fleet.publishing import sync
from fleet.publishing.freshness import keep_fresh
from fleet.publishing.sync import Bundles
from fleet.receiving.allowance import Allowance
from fleet.receiving.fair_queue import FairQueue
from fleet.receiving.message import Message
from fleet.receiving.requests import Requests
from fleet.receiving.roster import Roster
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import RENEW_RECEIVER, FleetFolder

T = TypeVar("T")

# Broker and lake are near, so the receiver retries more often than a vehicle does.
RETRY: Final = Backoff(floor_s=0.2, base_s=0.5, cap_s=10.0, stable_s=5.0)

FRESH_S: Final = 3_600.0
"""The interval at which the receiver looks whether the timestamp of pushes must be signed anew."""

ROSTER_S: Final = 10.0
"""The pause between two looks at the registry.  A look costs one `stat` while nothing has changed."""

_log = structlog.get_logger()


def endpoint_of(fleet: FleetFolder, host: str, port: int, share: Share) -> Endpoint:
    """Return the broker's address together with the receiver's certificate and key for mutual TLS."""
    # The client id is new each time, because a broker ends the connection of an earlier client with the same id.
    return Endpoint(
        host=host,
        port=port,
        ca_file=fleet.broker.authorities,
        cert_file=fleet.receiver_certificate,
        key_file=fleet.receiver_key,
        client_id=f"receiver-{share}-{token_hex(4)}",
        renew=RENEW_RECEIVER,
    )


class Receiver:
    """Receives the batches of `share` from the broker at `endpoint`, and stores them in `store`."""

    def __init__(self, fleet: FleetFolder, endpoint: Endpoint, share: Share, store: Store, roster: Roster) -> None:
        self._fleet = fleet
        self._endpoint = endpoint
        self._share = share
        self._store = store
        self._roster = roster
        self._batches = FairQueue(store.costs)
        self._requests = Requests()
        self._renewal_requests = Requests()
        self._renewals = Renewals(fleet)
        self._bundles = Bundles(fleet)
        # A vehicle that sends far too much is named once a minute.
        self._warnings = Allowance(1, 1 / 60)
        self._connection: Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set.

        A group that is complete by then is still stored and acknowledged.  Messages of an incomplete group stay
        unacknowledged, so the vehicles send them again.

        Raises: Permanent if a file of the fleet folder is missing or damaged; Transient if `stop` is set while the lake
        or the disk refuses.
        """
        with ungrouped():
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._link(), name="link"),
                    tasks.create_task(self._answer_requests(), name="answers"),
                    tasks.create_task(self._renew_certificates(), name="renewals"),
                    tasks.create_task(self._stay_fresh(), name="freshness"),
                    tasks.create_task(self._keep_roster(), name="roster"),
                ]
                # The receiver ends when the pipeline ends.  The other tasks never end by themselves.
                await self._pipeline(stop)
                for task in helpers:
                    task.cancel()

    # ---------------------------------------------------------------- link

    async def _link(self) -> None:
        session = self._after(Session(RETRY), Event.START)
        while True:
            try:
                async with connect(self._endpoint) as connection:
                    await connection.subscribe([*self._share.filters(), topics.ALL_SYNC, topics.ALL_FETCH])
                    session = self._after(session, Event.CONNECTED)
                    _log.info("broker_connected", broker=str(self._endpoint), partitions=str(self._share))
                    self._connection = connection
                    async for topic, payload in connection.messages():
                        await self._route(Message(topic, payload))
            except Transient as error:
                online = self._connection is not None
                # The warning is logged once for each outage, not for each attempt.
                if online or session.failures == 0:
                    _log.warning("broker_lost" if online else "broker_unreachable", reason=str(error))
                session = self._after(session, Event.LOST if online else Event.FAILED)
            finally:
                self._connection = None
            await asyncio.sleep(session.wait_s(time.monotonic()))
            session = self._after(session, Event.WAITED)

    async def _route(self, message: Message) -> None:
        if message.topic.startswith((f"{topics.ROOT}/sync/", f"{topics.ROOT}/fetch/")):
            queue = self._renewal_requests if is_request(message.payload) else self._requests
            taken = queue.put(message)
        else:
            # If the whole queue is full, `put` waits, and the link takes no more messages meanwhile.
            taken = await self._batches.put(message)
        if not taken and self._warnings.take(message.vehicle, time.monotonic()):
            _log.warning("vehicle_over_its_share", vehicle=message.vehicle, topic=message.topic[:120])

    def _after(self, session: Session, event: Event) -> Session:
        return session.after(event, now_s=time.monotonic(), jitter=random.random())  # noqa: S311 (jitter)

    # ---------------------------------------------------------------- pipeline

    async def _pipeline(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            # Earlier commits must be completed first.  If a table had a later commit number, the earlier commits would
            # count as appended already, and would be skipped.
            await self._until_it_works(self._store.recover, stopping)
            while not stopping.done():
                collecting = asyncio.create_task(self._batches.take_group(), name="collect")
                await asyncio.wait({collecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not collecting.done():
                    # The waiting messages are not acknowledged, so the vehicles send them again.
                    collecting.cancel()
                    return
                group = collecting.result()
                taken = await self._until_it_works(functools.partial(self._store.take_in, group), stopping)
                await self._send(await self._until_it_works(self._store.land, stopping))
                # The samples of a commit are limited.  The rest of the group competes again with what has come since.
                await self._batches.put_back(group[taken:])
        finally:
            stopping.cancel()

    async def _until_it_works(self, step: Callable[[], T], stopping: "asyncio.Task[bool]") -> T:
        """Run `step` in a thread, and retry after Transient.

        Raises: Transient if `stopping` is done before the step succeeds.
        """
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
        """Send acknowledgements, or drop them if the broker is not connected.

        A vehicle that gets no acknowledgement sends its batches again, and then gets a new acknowledgement.
        """
        if (connection := self._connection) is not None and answers:
            await asyncio.gather(*(self._publish(connection, answer) for answer in answers))

    async def _publish(self, connection: Connection, answer: Message) -> None:
        try:
            await connection.publish(answer.topic, answer.payload)
        except PublishRefused as error:
            _log.error("acknowledgement_refused", topic=answer.topic, reason=str(error))
        except Transient:
            # The link logs the lost connection.  The vehicle sends its batches again.
            pass

    # ---------------------------------------------------------------- answers

    async def _answer_requests(self) -> None:
        while True:
            request = await self._requests.take()
            connection = self._connection
            # The request may be dropped, because a vehicle without an answer asks again.
            if connection is None:
                continue
            try:
                sent = await sync.answer(connection, request.topic, request.payload, self._bundles)
                self._requests.charge_bytes(request.vehicle, sent)
            except Transient:
                continue
            except Permanent as error:
                # A damaged repository, for example one that is being restored, must not stop telemetry.
                _log.error("sync_failed", topic=request.topic, reason=str(error))

    async def _renew_certificates(self) -> None:
        while True:
            request = await self._renewal_requests.take()
            connection, vehicle, now = self._connection, request.vehicle, datetime.now(UTC)
            if connection is None:
                continue
            try:
                answer = await asyncio.to_thread(self._renewals.answer, vehicle, request.payload, now)
                if answer is not None:
                    await connection.publish(topics.push(vehicle), answer)
            except Transient:
                continue
            except (Untrusted, OSError) as error:
                _log.warning("renewal_refused", vehicle=vehicle[:60], reason=str(error))
            except Permanent as error:
                _log.error("renewal_failed", vehicle=vehicle[:60], reason=str(error))
            else:
                _log.info("certificate_sent" if answer else "certificate_awaits_signature", vehicle=vehicle)

    # ---------------------------------------------------------------- freshness

    async def _stay_fresh(self) -> None:
        while True:
            now = datetime.now(UTC)
            try:
                found = await asyncio.to_thread(keep_fresh, self._fleet, now)
            except Transient:
                pass  # A publisher is at work, and signs the timestamp itself.
            except (Permanent, OSError) as error:
                # Telemetry goes on.  Vehicles accept pushes until the timestamp expires.
                _log.error("pushes_not_kept_fresh", reason=str(error), remedy="run `fleet publish` where the keys are")
            else:
                if found.signed:
                    _log.info("timestamp_signed", expires=f"{found.expires:%Y-%m-%d}")
                if found.is_urgent(now):
                    _log.error(
                        "pushes_expire",
                        file=found.file,
                        expires=f"{found.expires:%Y-%m-%d}",
                        remedy="run `fleet publish`, or sign a new root (docs/keys.md)",
                    )
            await asyncio.sleep(FRESH_S)

    # ---------------------------------------------------------------- roster

    async def _keep_roster(self) -> None:
        failing = False
        while True:
            try:
                rows = await asyncio.to_thread(self._roster.update)
            except (Transient, Permanent) as error:
                # The table of vehicles serves questions only, so telemetry goes on without it.
                if not failing:
                    _log.error("vehicles_not_updated", reason=str(error))
                failing = True
            else:
                failing = False
                if rows:
                    _log.info("vehicles_updated", vehicles=rows)
            await asyncio.sleep(ROSTER_S)
