"""Queues the requests of vehicles that ask for news or for chunks, at most one of each kind for each vehicle.

Invariant: a request never waits for room, so requests never stand in the way of telemetry.  If there are too many, they
are dropped.  A vehicle without an answer asks again.
"""

import asyncio
import time
from typing import Final

from fleet.receiving.allowance import Allowance
from fleet.receiving.message import Message

WAITING: Final = 10_000
"""The limit of waiting requests.  A request takes less than 1 kB."""

MOST: Final = 20
PER_S: Final = 0.2
"""How many requests of one vehicle are answered at once, and how many a second in the long run."""

MOST_BYTES: Final = 32_000_000
BYTES_PER_S: Final = 20_000
"""How many bytes are sent to one vehicle at once, and in each second in the long run.

The first limit is four times the size of all large documents that a vehicle takes.  The second is enough for a bundle
in answer to each request.
"""


class Requests:
    """Holds the newest request of each vehicle on each topic until it is answered.

    Only tasks of one event loop may use it.
    """

    def __init__(self) -> None:
        self._allowance = Allowance(MOST, PER_S)
        self._bytes = Allowance(MOST_BYTES, BYTES_PER_S)
        self._waiting: dict[str, Message] = {}
        self._arrived = asyncio.Event()

    def put(self, request: Message) -> bool:
        """Add a request, and return True.  Return False if the vehicle asks too often or too many requests wait."""
        now_s = time.monotonic()
        if request.topic not in self._waiting and (
            len(self._waiting) >= WAITING
            or not self._bytes.is_left(request.vehicle, now_s)
            or not self._allowance.take(request.vehicle, now_s)
        ):
            return False
        self._waiting[request.topic] = request
        self._arrived.set()
        return True

    async def take(self) -> Message:
        """Remove and return the request that has waited longest."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    def charge_bytes(self, vehicle: str, sent: int) -> None:
        """Charge the bytes that were sent to the vehicle in answer to a request."""
        self._bytes.spend(vehicle, sent, time.monotonic())
