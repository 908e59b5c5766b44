"""What is said over one connection: hear the fleet, ask what is new, send what waits.  Touches the world.

Invariant: telemetry never waits for pushes; a broker that refuses to carry them is named in the log, once a
connection, and batches go on.
"""

import asyncio
from typing import Final

import structlog

from agent.apply import Applier
from agent.errors import Permanent
from agent.formats import topics
from agent.link.mqtt import NO_MATCHING_SUBSCRIBERS, Connection
from agent.telemetry.uplink import Uplink

ASK_AGAIN_S: Final = 30.0  # while the broker has nobody who answers
log = structlog.get_logger()


class Online:
    """Call it with each connection that comes about, one at a time; it works until that ends, or is cancelled.

    Raises Transient where the connection is lost, Permanent where the broker refuses what we must hear.
    """

    def __init__(self, vehicle: str, uplink: Uplink, applier: Applier, *, ask_again_s: float = ASK_AGAIN_S) -> None:
        self._vehicle = vehicle
        self._uplink = uplink
        self._applier = applier
        self._ask_again_s = ask_again_s
        self._nudged = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        """One connection, from its start to its end."""
        await connection.subscribe([topics.ack(self._vehicle), topics.push(self._vehicle), topics.NUDGE])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(connection), name="hear")
            group.create_task(self._ask(connection), name="ask")
            group.create_task(self._uplink.run(connection), name="uplink")

    async def _hear(self, connection: Connection) -> None:
        async for topic, payload in connection.messages():
            if topic == topics.ack(self._vehicle):
                await self._uplink.handle_ack(payload)
            elif topic == topics.push(self._vehicle):
                await self._applier.offer(payload)
            elif topic == topics.NUDGE:
                self._nudged.set()

    async def _ask(self, connection: Connection) -> None:
        """Ask what is new: now, and whenever the fleet says that something is."""
        while True:
            self._nudged.clear()
            try:
                await self._ask_once(connection)
            except Permanent as error:
                log.error("sync_refused", reason=str(error))
            await self._nudged.wait()

    async def _ask_once(self, connection: Connection) -> None:
        topic = topics.sync(self._vehicle)
        while await connection.publish(topic, self._applier.sync_request()) == NO_MATCHING_SUBSCRIBERS:
            await asyncio.sleep(self._ask_again_s)
