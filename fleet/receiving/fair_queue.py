"""Queues the messages of many vehicles, and serves those vehicles first that have cost the receiver least.

Invariants: the messages of a vehicle keep their order.  The bytes in the queue are limited, for each vehicle and for
all together.  If a vehicle sends more than its share, its messages are dropped, so it never fills the queue for the
others.  A dropped message loses nothing, because the vehicle gets no acknowledgement for it and sends it again.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from fleet.receiving.allowance import Allowance
from fleet.receiving.message import Message

# A group closes when it reaches the first of these limits.  Even a small commit takes some 60 ms, so groups should be
# large.  But vehicles wait for their acknowledgements while a group collects, so the time must be short.
GROUP_MESSAGES: Final = 200
GROUP_BYTES: Final = 2 * 1024 * 1024
GROUP_S: Final = 0.2

QUEUE_BYTES: Final = 64 * 1024 * 1024
"""The limit of bytes of all vehicles.  Beyond it, the link takes no more messages, and the broker keeps them."""

VEHICLE_BYTES: Final = 16 * 1024 * 1024
VEHICLE_MESSAGES: Final = 128
"""The limit of messages of one vehicle.  An agent has at most 64 in flight, and may send them again at once."""


class FairQueue:
    """Holds messages until a group of them is taken.  `costs` says how much each vehicle has cost recently.

    Only tasks of one event loop may use it.
    """

    def __init__(self, costs: Allowance) -> None:
        self._costs = costs
        self._waiting: dict[str, deque[Message]] = {}
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, message: Message) -> bool:
        """Add a message, and return True.  Wait while the whole queue is full.

        Return False without waiting if the vehicle has used up its allowance or its share of the queue.
        """
        waiting = self._waiting.get(message.vehicle, ())
        share = sum(len(each.payload) for each in waiting) + len(message.payload)
        allowed = self._costs.is_left(message.vehicle, time.monotonic())
        if not allowed or len(waiting) >= VEHICLE_MESSAGES or share > VEHICLE_BYTES:
            return False
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < QUEUE_BYTES)
            self._waiting.setdefault(message.vehicle, deque()).append(message)
            self._bytes += len(message.payload)
            self._changed.notify_all()
        return True

    async def take_group(self) -> list[Message]:
        """Remove and return the next group of messages.

        Wait for the first message as long as necessary.  Then wait at most GROUP_S seconds for further messages, and
        stop earlier if they suffice for a whole group.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GROUP_S):
                    await self._changed.wait_for(self._is_enough)
            group = self._take()
            self._changed.notify_all()
            return group

    async def put_back(self, messages: Sequence[Message]) -> None:
        """Return messages of the latest group that were not handled to the head of the queue."""
        async with self._changed:
            for message in reversed(messages):
                self._waiting.setdefault(message.vehicle, deque()).appendleft(message)
                self._bytes += len(message.payload)
            self._changed.notify_all()

    def _is_enough(self) -> bool:
        return self._bytes >= GROUP_BYTES or sum(map(len, self._waiting.values())) >= GROUP_MESSAGES

    def _take(self) -> list[Message]:
        """Take messages in turns: one of each vehicle, then another one of each, and so on."""
        now_s = time.monotonic()
        turns = deque(sorted(self._waiting, key=lambda vehicle: self._costs.used(vehicle, now_s)))
        group: list[Message] = []
        size = 0
        while turns and len(group) < GROUP_MESSAGES and size < GROUP_BYTES:
            vehicle = turns.popleft()
            message = self._waiting[vehicle].popleft()
            group.append(message)
            size += len(message.payload)
            if self._waiting[vehicle]:
                turns.append(vehicle)
            else:
                del self._waiting[vehicle]
        self._bytes -= size
        return group
