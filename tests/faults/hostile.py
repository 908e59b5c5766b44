"""Lets a second enrolled vehicle publish hostile messages, those of `make attacks`, while a campaign runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from agent.errors import AgentError
from agent.formats import topics
from agent.link.mqtt import connect
from fleet.state.folder import FleetFolder
from tests.attacks.honest import endpoint_of
from tests.attacks.test_hostile_vehicle import ATTACKS
from tests.faults.schedule import Kind
from tests.fleet.vehicles import make_vehicle

PAUSE_S: Final = 0.1
"""`make attacks` measures floods.  Here the messages only have to reach the receiver at any moment of other faults."""

ROWS_PAUSE_S: Final = 2.0
"""Each message of rows adds half a million rows to the lake, which every image contains."""

ANSWER_S: Final = 5.0


class HostileVehicle:
    """An enrolled vehicle with its files in `folder`, which attacks the broker on `port`."""

    def __init__(self, fleet: FleetFolder, folder: Path, port: int) -> None:
        self._vehicle = make_vehicle(fleet, folder)
        self._port = port
        self.messages = 0
        """The number of hostile messages that the broker has accepted."""

    @contextlib.asynccontextmanager
    async def attacking(self, kind: Kind) -> AsyncIterator[None]:
        """Publish messages of one kind for a `with` block, also if the broker is away for a part of it."""
        task = asyncio.create_task(self._attack(kind))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _attack(self, kind: Kind) -> None:
        payloads = ATTACKS[kind.value](self._vehicle)
        name = self._vehicle.name
        topic = topics.sync(name) if kind is Kind.REQUESTS else self._vehicle.topic
        pause_s = ROWS_PAUSE_S if kind is Kind.ROWS else PAUSE_S
        while True:
            with contextlib.suppress(AgentError):
                async with connect(endpoint_of(self._vehicle, self._port)) as connection:
                    while True:
                        # Some messages take a second to make, and the roads of the campaign share this thread.
                        payload = await asyncio.to_thread(next, payloads)
                        await connection.publish(topic, payload, ANSWER_S)
                        self.messages += 1
                        await asyncio.sleep(pause_s)
            await asyncio.sleep(PAUSE_S)
