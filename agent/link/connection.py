"""An open MQTT 5 connection as the rest of the project sees it.  Knows no MQTT library: `agent.link.mqtt` opens it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.errors import Permanent
from agent.link.endpoint import Endpoint

PUBLISH_OVERHEAD_BYTES: Final = 1 + 4 + 2 + 2 + 1  # fixed header, length of topic, packet id, no properties
REFUSED: Final = 0x80  # reason codes from here on are errors (MQTT 5, 2.4)
NO_MATCHING_SUBSCRIBERS: Final = 0x10  # a success: the broker took the message, and nobody subscribes to its topic
NOT_AUTHORISED: Final = 0x87
PACKET_TOO_LARGE: Final = 0x95


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the broker for one connection, from its CONNACK."""

    receive_maximum: int
    maximum_packet_size: int


class PublishRefused(Permanent):
    """The broker, or its packet limit (checked here), refused a message; `reason` is MQTT 5's reason code."""

    def __init__(self, message: str, reason: int) -> None:
        super().__init__(message)
        self.reason = reason


class Client(Protocol):
    """The operations that a connection needs of an MQTT library."""

    def publish_acknowledged(self, topic: str, payload: bytes, timeout_s: float) -> "asyncio.Future[int]":
        """Publish at QoS 1; the future ends with the reason code of the PUBACK."""

    async def subscribe_acknowledged(self, topics: Sequence[str], timeout_s: float) -> Sequence[tuple[int, str]]:
        """Subscribe at QoS 1; return reason code and its name for each topic of the SUBACK."""

    def received(self) -> AsyncIterator[tuple[str, bytes]]:
        """Incoming messages, each acknowledged when the next one is asked for.  Raises Transient at the end."""

    def own_address(self) -> str:
        """Return the IP address of our end; empty where there is no connection any more."""


class Connection:
    """An open connection.  Its methods may be called from any task of the event loop that opened it."""

    def __init__(self, endpoint: Endpoint, client: Client, limits: Limits) -> None:
        self._endpoint = endpoint
        self._client = client
        self.limits = limits
        self.own_address = client.own_address()
        """The address of our end, which tells over which interface the connection goes."""

    def publish(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> "asyncio.Future[int]":
        """Publish at QoS 1; return a future of the accepting reason code (0, or NO_MATCHING_SUBSCRIBERS).

        The future raises PublishRefused if the broker refuses, or if the packet exceeds its Maximum Packet Size.  It
        raises Transient if the connection ends first, or if no PUBACK comes in `timeout_s`: then the connection is
        given up as stalled.  At most `limits.receive_maximum` messages are in flight; others wait for them.
        """
        # MQTT 5, 3.2.2.3.6: the broker closes the connection on a larger packet, and paho does not check.
        size = PUBLISH_OVERHEAD_BYTES + len(topic.encode()) + len(payload)
        if size <= self.limits.maximum_packet_size:
            return self._client.publish_acknowledged(topic, payload, timeout_s)
        refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refused.set_exception(
            PublishRefused(
                f"message of {size} bytes for {topic} exceeds the Maximum Packet Size of {self._endpoint} "
                f"({self.limits.maximum_packet_size}): lower the batch size or raise the broker's limit",
                PACKET_TOO_LARGE,
            )
        )
        return refused

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe at QoS 1.  Raises: Permanent if the broker refuses a topic, Transient if the connection ends."""
        reasons = await self._client.subscribe_acknowledged(topics, self._endpoint.timeout_s)
        refused = [f"{topic} ({name})" for topic, (code, name) in zip(topics, reasons, strict=True) if code >= REFUSED]
        if refused:
            raise Permanent(f"{self._endpoint} refused subscription to {', '.join(refused)}: check the broker's ACL")

    def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield incoming messages (topic, payload) until the connection ends, then raise Transient.

        A message is acknowledged to the broker when the next one is asked for, so a broker that keeps to
        `Endpoint.receive_maximum` holds back what has not been read.  mosquitto 2.0.11 exceeds that limit while it
        drains a queue, so the bytes that wait here are bounded as well; beyond the bound the connection is given up.
        """
        return self._client.received()
