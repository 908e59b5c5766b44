"""Work on one connection: receive messages, ask the fleet for a new release, and send batches.

Invariant: telemetry and acknowledgements never wait for pushes.  If the broker refuses a request for pushes, the log
says so, and batches are sent all the same.

Bundles are examined in a separate task.  If several bundles wait, only the newest bundle is examined.  After a
refusal, no bundle is examined until a back-off has passed, and a new connection does not shorten the back-off.  A flood
of forged bundles therefore costs the machine little.  Large documents are fetched in chunks (`runtime/fetch.py`), and
when they are complete, the agent asks for the bundle again.
"""

import asyncio
import contextlib
import random
import time
from typing import Final

import structlog

from agent.errors import Permanent, Transient
from agent.formats import topics
from agent.formats.renewal import is_certificate
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS, Connection
from agent.link.session import Backoff
from agent.runtime.apply import Applier
from agent.runtime.fetch import Fetcher
from agent.runtime.renewal import Renewal
from agent.telemetry.uplink.uplink import Uplink

ASK_AGAIN_S: Final = 30.0  # the pause while no client subscribes to our requests
ANSWER: Final = Backoff(
    floor_s=20.0, base_s=40.0, cap_s=3_600.0
)  # the wait for an answer; "nothing new" is an answer too
REFUSED: Final = Backoff(floor_s=1.0, base_s=2.0, cap_s=60.0)  # between a refused bundle and the next one examined
log = structlog.get_logger()


class Online:
    """Works on the connections of one vehicle, one at a time.

    Call the instance with each new connection.  The call runs until the connection ends.

    Raises: Transient if the connection is lost, Permanent if the broker refuses a subscription.  An error of a task
    arrives in an ExceptionGroup.
    """

    def __init__(
        self,
        vehicle: str,
        uplink: Uplink,
        applier: Applier,
        renewal: Renewal | None = None,
        *,
        answer: Backoff = ANSWER,
        refused: Backoff = REFUSED,
    ) -> None:
        self._vehicle = vehicle
        self._uplink = uplink
        self._applier = applier
        self._renewal = renewal
        self._answer = answer
        self._refused = refused
        self._nudged = asyncio.Event()
        self._answered = asyncio.Event()
        self._news = asyncio.Event()  # set when nudged or answered
        self._bundle: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._leave = asyncio.Event()
        self._refusals = 0  # in a row
        self._quiet_until_s = 0.0
        self._jitter = random.random
        self._fetcher = Fetcher(vehicle, applier, self._ask_now, answer=answer, jitter=self._jitter)

    async def __call__(self, connection: Connection) -> None:
        """Work on one connection, from its start to its end."""
        own = (topics.ack, topics.push, topics.chunk)
        await connection.subscribe([*(topic(self._vehicle) for topic in own), topics.NUDGE])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(connection), name="hear")
            group.create_task(self._examine(), name="examine")
            group.create_task(self._ask(connection), name="ask")
            group.create_task(self._fetcher.run(connection), name="fetch")
            group.create_task(self._uplink.run(connection), name="uplink")
            group.create_task(self._leave_when_asked(), name="leave")
            if self._renewal is not None:
                group.create_task(self._renewal.run(connection, topics.sync(self._vehicle)), name="renewal")

    def reconnect(self) -> None:
        """End the present connection, if any, so that the agent connects again as its settings now say."""
        self._leave.set()

    async def _leave_when_asked(self) -> None:
        self._leave.clear()
        await self._leave.wait()
        raise Transient("a release changes how the broker is reached; the agent connects again")

    async def _hear(self, connection: Connection) -> None:
        async for topic, payload in connection.messages():
            if topic == topics.ack(self._vehicle):
                await self._uplink.handle_ack(payload)
            elif topic == topics.push(self._vehicle) and self._renewal is not None and is_certificate(payload):
                # If the certificate is good, this ends the connection, and the next one is made with it.
                await self._renewal.take(payload)
            elif topic == topics.push(self._vehicle):
                if self._bundle.full():
                    self._bundle.get_nowait()
                self._bundle.put_nowait(payload)
                self._answered.set()
                self._news.set()
            elif topic == topics.chunk(self._vehicle):
                self._fetcher.hear(payload)
            elif topic == topics.NUDGE:
                self._ask_now()

    def _ask_now(self) -> None:
        self._nudged.set()
        self._news.set()

    async def _examine(self) -> None:
        """Offer the newest waiting bundle to the applier, but not before the back-off ends.  Runs until cancelled."""
        while True:
            await asyncio.sleep(self._quiet_until_s - time.monotonic())
            if await self._applier.offer(await self._bundle.get()):
                self._refusals = 0
                self._fetcher.wake()
                continue
            self._refusals += 1
            self._quiet_until_s = time.monotonic() + self._refused.wait_s(self._refusals, self._jitter())

    async def _ask(self, connection: Connection) -> None:
        """Ask for a new release: now, after each nudge, and again if no answer arrives.  Runs until cancelled."""
        unanswered = 0
        while True:
            self._nudged.clear()
            self._answered.clear()
            self._news.clear()
            try:
                await self._ask_once(connection)
            except Permanent as error:
                log.error("sync_refused", reason=str(error))
                await self._nudged.wait()
                continue
            unanswered += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._answer.wait_s(unanswered, self._jitter())):
                    await self._news.wait()
            if self._answered.is_set():
                unanswered = 0
                await self._nudged.wait()

    async def _ask_once(self, connection: Connection) -> None:
        topic = topics.sync(self._vehicle)
        while await connection.publish(topic, self._applier.sync_request()) == NO_MATCHING_SUBSCRIBERS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._nudged.wait()
            self._nudged.clear()
