"""Decide which packets of the broker may reach the MQTT library, by their first bytes.  Pure.

MQTT 5 has no limit that a client can impose: the Maximum Packet Size in CONNECT is a request, and a hostile broker
ignores it.  paho then collects up to 256 MB for one packet, and answers or keeps packets that no client asked for.  The
inspector reads the announced length and the properties' length before paho does.  The connection ends at the first
packet that is not in this table:

| packet | limit | why |
|---|---|---|
| CONNACK, PUBACK, SUBACK, DISCONNECT | `ANSWER_BYTES` | a reason code, and perhaps a text |
| PINGRESP | 0 bytes | it has no content (MQTT 5, 3.13) |
| PUBLISH | `maximum_packet_bytes` | the limit that CONNECT asked for |
| its topic | `TOPIC_BYTES` | the topics of agent.formats.topics have less than 100 bytes |
| its properties | `PROPERTIES_BYTES` | nothing of the agent uses them, and paho turns 5 bytes into 64 |
| its quality of service | 1 | paho keeps messages of QoS 2 until the broker releases them, without any limit |

PINGREQ and the packets of QoS 2 are never sent to a client that subscribes and publishes at QoS 1.  paho would queue an
answer to each, for a broker that does not read.

Invariant: the decision does not depend on how the stream is cut.
"""

from typing import Final

ANSWER_BYTES: Final = 4_096
TOPIC_BYTES: Final = 512
PROPERTIES_BYTES: Final = 4_096
_PUBLISH: Final = 3
_ANSWERS: Final = {
    2: ("CONNACK", ANSWER_BYTES),
    4: ("PUBACK", ANSWER_BYTES),
    9: ("SUBACK", ANSWER_BYTES),
    13: ("PINGRESP", 0),
    14: ("DISCONNECT", ANSWER_BYTES),
}
"""The packets without a message, by their type (MQTT 5, 2.1.2), each with its name and limit."""
_LENGTH_BYTES: Final = 4  # the longest variable byte integer (MQTT 5, 1.5.5)


class PacketRefusedError(ConnectionError):
    """The broker has begun to send a packet that no honest broker sends to this client."""


class Inspector:
    """Follows the stream of one connection, packet by packet."""

    def __init__(self, maximum_packet_bytes: int) -> None:
        self._maximum_packet_bytes = maximum_packet_bytes
        self._head = bytearray()  # the first bytes of the present packet, until the packet is accepted
        self._wanted = 2  # bytes of `_head` that the next step of the decision needs
        self._rest = 0  # bytes of the accepted packet that are still to come

    def take(self, data: bytes) -> None:
        """Inspect the next bytes of the stream.  Raises: PacketRefusedError."""
        at = 0
        while at < len(data):
            if self._rest:
                skipped = min(self._rest, len(data) - at)
                self._rest -= skipped
                at += skipped
                continue
            missing = self._wanted - len(self._head)
            self._head += data[at : at + missing]
            at += missing
            if len(self._head) == self._wanted:
                self._decide()

    def _decide(self) -> None:
        """Accept or refuse the packet, or ask for more of its head."""
        head = self._head
        length, start = _length(head, 1)
        if length is None:
            self._wanted = start
            return
        kind = head[0] >> 4
        if kind != _PUBLISH:
            _check_answer(kind, length)
        elif (wanted := self._check_publish(length, start)) > len(head):
            if wanted > start + length:
                raise PacketRefusedError("the broker sent a PUBLISH that ends within its header")
            self._wanted = wanted
            return
        self._rest = start + length - len(head)
        self._head, self._wanted = bytearray(), 2

    def _check_publish(self, length: int, start: int) -> int:
        """Check what the head shows of a PUBLISH, and return the number of bytes that the next step needs."""
        head, size = self._head, start + length
        if size > self._maximum_packet_bytes:
            raise PacketRefusedError(
                f"the broker announced a PUBLISH of {size} bytes, but at most {self._maximum_packet_bytes} are accepted"
            )
        qos = head[0] >> 1 & 3
        if qos > 1:
            raise PacketRefusedError(f"the broker sent a message at QoS {qos}, but the subscription is at QoS 1")
        topic = start + 2
        if len(head) < topic:
            return topic
        topic_bytes = int.from_bytes(head[start:topic], "big")
        if topic_bytes > TOPIC_BYTES:
            raise PacketRefusedError(f"the broker sent a topic of {topic_bytes} bytes; at most {TOPIC_BYTES} are usual")
        properties = topic + topic_bytes + (2 if qos else 0)
        if len(head) <= properties:
            return properties + 1
        properties_bytes, end = _length(head, properties)
        if properties_bytes is None:
            return end
        if properties_bytes > PROPERTIES_BYTES:
            raise PacketRefusedError(
                f"the broker sent a message with {properties_bytes} bytes of properties; "
                f"at most {PROPERTIES_BYTES} are accepted"
            )
        return end


def _check_answer(kind: int, length: int) -> None:
    if kind not in _ANSWERS:
        raise PacketRefusedError(f"the broker sent a packet of type {kind}, which no broker may send to this client")
    name, limit = _ANSWERS[kind]
    if length > limit:
        raise PacketRefusedError(f"the broker announced a {name} of {length} bytes, but at most {limit} are accepted")


def _length(head: bytearray, start: int) -> tuple[int | None, int]:
    """Read the variable byte integer at `start`, and return its value and end.

    If the integer goes on beyond `head`, the value is None, and the end is one byte more than `head` has.
    """
    value = 0
    for place in range(_LENGTH_BYTES):
        if start + place >= len(head):
            return None, len(head) + 1
        byte = head[start + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, start + place + 1
    raise PacketRefusedError("the broker sent a length of more than four bytes, which MQTT does not allow")
