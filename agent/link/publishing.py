"""Track the published messages of one connection until their PUBACK arrives.

This file depends on no MQTT library.  Invariants:

- At most Receive Maximum messages are in flight (MQTT 5, 3.2.2.3.3).  paho would queue further messages by itself, and
  might send them over a later connection.
- The future of each message gets a result or an error, whatever happens to the connection.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.errors import AgentError


@dataclass(slots=True)
class Message:
    """A message to publish at QoS 1.

    `answer` is the future of the PUBACK's reason code.  From `due_s` on (on the clock of the event loop), the PUBACK is
    overdue.
    """

    topic: str
    payload: bytes
    timeout_s: float
    answer: "asyncio.Future[int]"
    due_s: float = math.inf


class Publishing:
    """Sends the messages of one connection, and waits for the PUBACK of each.

    `send` hands a message to the MQTT library and returns its packet identifier.  It raises Transient if the connection
    has ended, and ValueError for a topic or payload that MQTT forbids.  If a PUBACK is overdue, `give_up` is
    called with a text that names the PUBACK, and with the timeout in seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Message], int],
        give_up: Callable[[str, float], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._give_up = give_up
        self._in_flight: dict[int, Message] = {}
        self._queued: deque[Message] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.receive_maximum = 1
        """The number of messages that may be in flight at the same time, which the CONNACK sets."""

    def publish(self, topic: str, payload: bytes, timeout_s: float) -> "asyncio.Future[int]":
        """Publish a message once fewer than `receive_maximum` are in flight; return the future of its reason code."""
        message = Message(topic, payload, timeout_s, self._loop.create_future())
        self._queued.append(message)
        self._fill()
        return message.answer

    def take(self, packet_id: int) -> Message | None:
        """Return the message that a PUBACK answers, and send the next queued message.

        Returns None if the packet identifier is unknown, or if the caller has cancelled the message.
        """
        message = self._in_flight.pop(packet_id, None)
        self._fill()
        return None if message is None or message.answer.done() else message

    def fail(self, error: Exception) -> None:
        """Fail all futures with `error`, because the connection has ended."""
        messages = [*self._in_flight.values(), *self._queued]
        self._in_flight.clear()
        self._queued.clear()
        for message in messages:
            fail(message.answer, error)

    def close(self) -> None:
        """Cancel the timer that looks for overdue PUBACKs."""
        if self._timer is not None:
            self._timer.cancel()

    def _fill(self) -> None:
        while self._queued and len(self._in_flight) < self.receive_maximum:
            message = self._queued.popleft()
            if message.answer.done():  # The caller cancelled the message while it was queued.
                continue
            try:
                packet_id = self._send(message)
            except (AgentError, ValueError) as error:  # paho raises ValueError for a topic or payload that MQTT forbids
                fail(message.answer, error)
                continue
            message.due_s = self._loop.time() + message.timeout_s
            self._in_flight[packet_id] = message
            self._watch(message.due_s)

    def _watch(self, due_s: float) -> None:
        # One timer serves all messages, because a timer for each would cost more than the message itself.
        if self._timer is not None and due_s < self._timer.when():
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._look_for_overdue)

    def _look_for_overdue(self) -> None:
        """Call `give_up` if a PUBACK is overdue, or look again when the next PUBACK would be overdue."""
        self._timer = None
        first = min(self._in_flight.values(), key=lambda message: message.due_s, default=None)
        if first is None:
            return
        if first.due_s <= self._loop.time():
            self._give_up(f"PUBACK for {first.topic}", first.timeout_s)
        else:
            self._watch(first.due_s)


def fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    """Fail the future unless it is already done."""
    if not answer.done():
        answer.set_exception(error)
        mark_retrieved(answer)


def mark_retrieved(future: "asyncio.Future[Any]") -> None:
    """Mark the exception of a future as retrieved, so that asyncio does not log it if no task awaits the future."""
    if not future.cancelled():
        future.exception()
