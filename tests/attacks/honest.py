"""Runs many honest vehicles against a real broker, and measures how long their acknowledgements take."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.errors import Transient
from agent.formats import topics
from agent.link.mqtt import Connection, Endpoint, connect
from tests.fleet.vehicles import Vehicle

PERIOD_S = 1.0
RESEND_S = 10.0
END_S = 180.0  # a slow machine works off what has piled up


def endpoint_of(vehicle: Vehicle, port: int) -> Endpoint:
    folder: Path = vehicle.folder
    return Endpoint(
        host="localhost",
        port=port,
        ca_file=folder / "ca.crt.pem",
        cert_file=folder / "device.crt.pem",
        key_file=folder / "device.key.pem",
        client_id=vehicle.name,
        timeout_s=30.0,
    )


@dataclass
class Honest:
    """One honest vehicle: sends a batch each second, and sends it again if it is not acknowledged in RESEND_S seconds.

    `latencies_s` has the time from the first sending of each batch to its acknowledgement, and `waiting` the batches
    that are not acknowledged yet, with the time of their first sending.
    """

    vehicle: Vehicle
    latencies_s: list[float] = field(default_factory=list)
    waiting: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    sent: int = 0

    async def run(self, connection: Connection, stop: asyncio.Event) -> None:
        listening = asyncio.create_task(self._listen(connection))
        sent_again_s: dict[int, float] = {}
        try:
            while not stop.is_set():
                self.sent += 1
                self.waiting[self.sent] = time.monotonic()
                await connection.publish(self.vehicle.topic, self.vehicle.batch(self.sent))
                await asyncio.sleep(PERIOD_S)
                for seq, first_s in list(self.waiting.items()):
                    if time.monotonic() - sent_again_s.get(seq, first_s) > RESEND_S:
                        sent_again_s[seq] = time.monotonic()
                        await connection.publish(self.vehicle.topic, self.vehicle.batch(seq))
            deadline_s = time.monotonic() + END_S
            while self.waiting and time.monotonic() < deadline_s:
                await asyncio.sleep(0.1)
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self, connection: Connection) -> None:
        async for _, payload in connection.messages():
            ack = self.vehicle.verify(payload)
            self.refused |= ack.refused.keys()
            for seq, _ in ack.stored:
                if (first_s := self.waiting.pop(seq, None)) is not None:
                    self.latencies_s.append(time.monotonic() - first_s)


@contextlib.asynccontextmanager
async def driving(vehicles: Sequence[Honest], port: int) -> AsyncIterator[None]:
    """Let the vehicles drive for a `with` block, and wait at its end until every batch is acknowledged."""
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for each in vehicles:
            connection = await stack.enter_async_context(connect(endpoint_of(each.vehicle, port)))
            await connection.subscribe([topics.ack(each.vehicle.name)])
            tasks.append(asyncio.create_task(each.run(connection, stop)))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)


def p99_s(vehicles: Sequence[Honest]) -> float:
    """Return the 99th percentile of all latencies."""
    return float(np.percentile([latency for each in vehicles for latency in each.latencies_s], 99))


@contextlib.asynccontextmanager
async def flooding(vehicle: Vehicle, port: int, topic: str, payloads: AsyncIterator[bytes]) -> AsyncIterator[list[int]]:
    """Publish `payloads` as `vehicle` for a `with` block, as fast as the broker takes them; yield a count of them."""
    count = [0]

    async def flood(connection: Connection) -> None:
        under_way: set[asyncio.Future[int]] = set()
        async for payload in payloads:
            under_way.add(connection.publish(topic, payload))
            count[0] += 1
            if len(under_way) >= 64:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)

    async with connect(endpoint_of(vehicle, port)) as connection:
        task = asyncio.create_task(flood(connection))
        try:
            yield count
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Transient):
                await task
