"""Publish, subscribe and receive over an open MQTT 5 connection.

This file depends on no MQTT library.  `agent.link.mqtt` opens connections.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

import msgspec

from agent.errors import Permanent
from agent.link.endpoint import Endpoint

PUBLISH_OVERHEAD_BYTES: Final = 1 + 4 + 2 + 2 + 1  # fixed header (1 + 4), topic length, packet id, no properties
REFUSED: Final = 0x80  # reason codes from here on are errors (MQTT 5, 2.4)
NO_MATCHING_SUBSCRIBERS: Final = 0x10  # a success, but no client subscribes to the topic
NOT_AUTHORISED: Final = 0x87
PACKET_TOO_LARGE: Final = 0x95


class Limits(msgspec.Struct, frozen=True):
    """Holds the limits that the broker set for one connection in its CONNACK.

    `receive_maximum` is a number of messages, and `maximum_packet_size` is in bytes.
    """

    receive_maximum: int
    maximum_packet_size: int


class PublishRefused(Permanent):
    """The broker refused a message, or the message exceeds the broker's packet limit.

    `reason` is the MQTT 5 reason code.
    """

    def __init__(self, message: str, reason: int) -> None:
        super().__init__(message)
        self.reason = reason


class Client(Protocol):
    """Lists the operations that a `Connection` needs from an MQTT library."""

    def publish_acknowledged(self, topic: str, payload: bytes, timeout_s: float) -> "asyncio.Future[int]":
        """Publish a message at QoS 1; return a future of the reason code in its PUBACK."""

    async def subscribe_acknowledged(self, topics: Sequence[str], timeout_s: float) -> Sequence[tuple[int, str]]:
        """Subscribe at QoS 1; return, for each topic, the reason code in the SUBACK and the code's name."""

    def received(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield incoming messages (topic, payload), and acknowledge each when the next one is asked for.

        Raises: Transient when the connection ends.
        """

    def own_address(self) -> str:
        """Return the local IP address of the connection, or an empty string if the connection has ended."""


class Connection:
    """An open connection to the broker.

    Its methods may be called from any task of the event loop that opened the connection.
    """

    def __init__(self, endpoint: Endpoint, client: Client, limits: Limits) -> None:
        self._endpoint = endpoint
        self._client = client
        self.limits = limits
        self.own_address = client.own_address()
        """The local IP address.  It tells which network interface the connection uses."""

    def publish(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> "asyncio.Future[int]":
        """Publish at QoS 1; return a future of the broker's reason code (0, or NO_MATCHING_SUBSCRIBERS).

        The future raises PublishRefused if the broker refuses the message, or if the packet exceeds the broker's
        Maximum Packet Size.  The future raises Transient if the connection ends first.  If no PUBACK arrives within
        `timeout_s` seconds of sending, the whole connection counts as stalled and is treated as ended.

        At most `limits.receive_maximum` messages are in flight.  Further messages wait in a queue.
        """
        # MQTT 5, 3.2.2.3.6: the broker closes the connection on a larger packet, and paho does not check.
        size = PUBLISH_OVERHEAD_BYTES + len(topic.encode()) + len(payload)
        if size <= self.limits.maximum_packet_size:
            return self._client.publish_acknowledged(topic, payload, timeout_s)
        refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refused.set_exception(
            PublishRefused(
                f"a message of {size} bytes for {topic} exceeds the Maximum Packet Size of broker {self._endpoint}, "
                f"which is {self.limits.maximum_packet_size} bytes; raise the broker's limit",
                PACKET_TOO_LARGE,
            )
        )
        return refused

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe to all `topics` at QoS 1.

        Raises: Permanent if the broker refuses a topic, Transient if the connection ends.
        """
        reasons = await self._client.subscribe_acknowledged(topics, self._endpoint.timeout_s)
        refused = [f"{topic} ({name})" for topic, (code, name) in zip(topics, reasons, strict=True) if code >= REFUSED]
        if refused:
            raise Permanent(
                f"broker {self._endpoint} refused the subscription to {', '.join(refused)}; check the broker's ACL"
            )

    def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield incoming messages (topic, payload) until the connection ends, then raise Transient.

        Each message is acknowledged to the broker when the next one is asked for.  A broker that respects
        `Endpoint.receive_maximum` therefore sends at most that number of messages ahead of the reader.

        mosquitto 2.0.11 exceeds this number while it drains a queue, so the unread bytes are bounded as well.  A
        connection that exceeds the bound is treated as ended.
        """
        return self._client.received()
