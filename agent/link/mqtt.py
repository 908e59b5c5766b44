"""One MQTT 5 connection over mutual TLS; the only file of the project that knows aiomqtt and paho.

Invariants: `publish` returns only on a PUBACK that accepts (reason code below 0x80); whatever the broker's
CONNACK limits is kept to; and a connection that ended leaves no task, no socket, no thread that touches the
event loop, and no message that some later connection would send behind the caller's back (a fresh client each
time, clean start, session expiry 0, nothing retained).

What aiomqtt 2.5 does not give, and `_Client` adds:
- it drops the PUBACK's reason code, so a denied publish looks like a success;
- it waits out its timeout when the connection goes before PUBACK, SUBACK or CONNACK come;
- a CONNACK that refuses or never comes leaves the socket, its reader and a task behind;
- a cancelled connect leaves a thread of the default executor, which a stopping process then waits for.
"""

import asyncio
import contextlib
import math
import socket
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.errors import Permanent, Transient
from agent.link.endpoint import Endpoint, connect_error, socket_class, tls_context

MQTT_MAXIMUM_PACKET_BYTES: Final = 268_435_460  # what the protocol itself can express: fixed header included
DEFAULT_RECEIVE_MAXIMUM: Final = 65_535  # MQTT 5, 3.2.2.3.3: where CONNACK does not say
PUBLISH_OVERHEAD_BYTES: Final = 1 + 4 + 2 + 2 + 1  # fixed header, length of topic, packet id, no properties
REFUSED: Final = 0x80  # reason codes from here on are errors (MQTT 5, 2.4)
_UNREAD_PACKETS: Final = 4  # of the largest size that we allow the broker: what may wait to be read
_CLOSE_S: Final = 1.0  # for DISCONNECT to leave the socket; then the connection is cut
_T = TypeVar("_T")
__all__ = ["Connection", "Endpoint", "Limits", "PublishRefused", "connect"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker allows on this connection, from its CONNACK."""

    receive_maximum: int
    maximum_packet_size: int


class PublishRefused(Permanent):
    """The broker, or its packet limit (checked here), refused a message; `reason` is MQTT 5's reason code."""

    def __init__(self, message: str, reason: int) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class _Message:
    topic: str
    payload: bytes
    timeout_s: float
    answer: "asyncio.Future[int]"
    due_s: float = math.inf


NO_MATCHING_SUBSCRIBERS: Final = 0x10  # a success: the broker took it, and nobody listens
NOT_AUTHORISED: Final = 0x87
PACKET_TOO_LARGE: Final = 0x95


class Connection:
    """An open connection.  Its methods may be called from any task of the event loop that opened it."""

    def __init__(self, endpoint: Endpoint, client: "_Client", limits: Limits) -> None:
        self._endpoint = endpoint
        self._client = client
        self.limits = limits
        self.own_address = client.own_address()
        """Of our end: it tells over which interface the connection goes."""

    def publish(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> "asyncio.Future[int]":
        """Publish at QoS 1.  The future ends when the broker accepts, with the reason code (0, or
        NO_MATCHING_SUBSCRIBERS).

        It raises PublishRefused where the broker refuses or the packet exceeds its Maximum Packet Size;
        Transient where the connection goes first, or no PUBACK comes in `timeout_s`: then the connection is
        given up as stalled.  At most `limits.receive_maximum` messages are under way, others wait for them.
        """
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
        """Subscribe at QoS 1.  Raises Permanent where the broker refuses one, Transient where it goes."""
        reasons = await self._client.subscribe_acknowledged(topics, self._endpoint.timeout_s)
        refused = [
            f"{topic} ({reason.getName()})"
            for topic, reason in zip(topics, reasons, strict=True)
            if reason.value >= REFUSED
        ]
        if refused:
            raise Permanent(f"{self._endpoint} refused subscription to {', '.join(refused)}: check the broker's ACL")

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """Incoming messages (topic, payload) until the connection ends, then raises Transient.

        A message is acknowledged to the broker when the next one is asked for, so a broker that keeps to
        `Endpoint.receive_maximum` holds what we have not come to.  mosquitto 2.0.11 exceeds it while it drains
        a queue: what waits here is bounded in bytes too, and beyond that the connection is given up.
        """
        try:
            async for message in self._client.messages:
                yield str(message.topic), message.payload if isinstance(message.payload, bytes) else b""
                self._client.acknowledge(message)
        except aiomqtt.MqttError as error:
            raise self._client.lost() from error


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[Connection]:
    """Connect, and disconnect at the end.

    Raises Permanent where our own files are at fault (missing, not matching, expired), Transient for whatever
    may mend itself, each naming the endpoint or the file and the remedy.
    """
    client = _Client(endpoint, tls_context(endpoint, datetime.now(UTC)))
    try:
        limits = await client.open()
        yield Connection(endpoint, client, limits)
    finally:
        await client.close()


class _Client(aiomqtt.Client):
    """aiomqtt's event-loop glue around one paho client, used for one connection."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's gap
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = endpoint.receive_maximum
        properties.MaximumPacketSize = endpoint.maximum_packet_bytes
        self._alerts: list[ssl.SSLError] = []
        context.sslsocket_class = socket_class(self._alerts)
        super().__init__(
            endpoint.host,
            endpoint.port,
            identifier=endpoint.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=endpoint.keepalive_s,
            clean_start=True,
            properties=properties,
            tls_context=context,
            max_inflight_messages=0,  # `_publishing` is bounded as CONNACK says: paho must never queue on its own
        )
        self._client.connect_timeout = endpoint.timeout_s
        self._client.manual_ack_set(True)
        self._endpoint = endpoint
        self._limits = Limits(DEFAULT_RECEIVE_MAXIMUM, MQTT_MAXIMUM_PACKET_BYTES)
        self._publishing: dict[int, _Message] = {}  # at most Receive Maximum of the CONNACK
        self._queued: deque[_Message] = deque()
        self._stalling: asyncio.TimerHandle | None = None
        self._subscribing: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._unread_bytes = 0
        self._loop_thread = threading.current_thread()
        self._gate = threading.Lock()  # between the connecting thread and `close`
        self._closed = False
        self._connected.add_done_callback(_retrieved)
        self._disconnected.add_done_callback(_retrieved)
        self._disconnected.add_done_callback(self._fail_waiting)

    async def open(self) -> Limits:
        """Connect up to an accepting CONNACK.  Raises Transient; call `close` whatever happens."""
        opened: asyncio.Future[None] = self._loop.create_future()
        opened.add_done_callback(_retrieved)
        # A daemon thread: nobody waits for one that hangs in DNS or a handshake after we were cancelled.
        threading.Thread(target=self._open_socket, args=(opened,), name="mqtt-connect", daemon=True).start()
        try:
            await opened
        except (OSError, ValueError) as error:
            raise connect_error(self._endpoint, error) from error
        await asyncio.wait(
            {self._connected, self._disconnected},
            timeout=self._endpoint.timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._connected.done():
            if (refusal := self._connected.exception()) is not None:
                raise Transient(f"{self._endpoint} refused the connection: {refusal}") from refusal
            return self._limits
        if self._disconnected.done():
            cause = self._alerts[0] if self._alerts else self._disconnected.exception()
            raise connect_error(self._endpoint, cause) from cause
        raise Transient(f"{self._endpoint} sent no CONNACK in {self._endpoint.timeout_s:g} s: is it an MQTT broker?")

    async def close(self) -> None:
        """Disconnect, politely where the connection stands, and take everything off the event loop."""
        with self._gate:
            self._closed = True
        online = self._connected.done() and self._connected.exception() is None
        if online and not self._disconnected.done():
            self._client.disconnect()
            await asyncio.wait({self._disconnected}, timeout=_CLOSE_S)
        await asyncio.sleep(0)  # what the connecting thread scheduled before the gate fell runs first
        self._client._sock_close()  # paho has no public way to drop a connection without the peer
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        self._connected.cancel()
        if self._stalling is not None:
            self._stalling.cancel()
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait({self._misc_task})

    def publish_acknowledged(self, topic: str, payload: bytes, timeout_s: float) -> "asyncio.Future[int]":
        """See Connection.publish."""
        message = _Message(topic, payload, timeout_s, self._loop.create_future())
        if len(self._publishing) < self._limits.receive_maximum:
            self._publish(message)
        else:
            self._queued.append(message)
        return message.answer

    def _publish(self, message: "_Message") -> None:
        if message.answer.done():  # given up while it was queued
            return
        if self._disconnected.done():
            _fail(message.answer, self.lost())
            return
        info = self._client.publish(message.topic, message.payload, qos=1)
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            _fail(message.answer, self.lost())
            return
        message.due_s = self._loop.time() + message.timeout_s
        self._publishing[info.mid] = message
        if self._stalling is not None and message.due_s < self._stalling.when():
            self._stalling.cancel()
            self._stalling = None
        if self._stalling is None:
            self._stalling = self._loop.call_at(message.due_s, self._look_for_stalled)

    def _look_for_stalled(self) -> None:
        """Give the connection up where a PUBACK is overdue; else look again when the next one would be."""
        self._stalling = None
        first = min(self._publishing.values(), key=lambda message: message.due_s, default=None)
        if first is None:
            return
        if first.due_s <= self._loop.time():
            self._stalled(f"PUBACK for {first.topic}", first.timeout_s)
        else:
            self._stalling = self._loop.call_at(first.due_s, self._look_for_stalled)

    async def subscribe_acknowledged(self, topics: Sequence[str], timeout_s: float) -> list[ReasonCode]:
        """Subscribe at QoS 1 and wait for the SUBACK."""
        if self._disconnected.done():
            raise self.lost()
        code, mid = self._client.subscribe([(topic, 1) for topic in topics])
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self.lost()
        answer: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._subscribing[mid] = answer
        timer = self._loop.call_later(timeout_s, self._stalled, "SUBACK", timeout_s)
        try:
            return await answer
        finally:
            timer.cancel()

    def own_address(self) -> str:
        """The IP address of our end; empty where there is no connection any more."""
        sock: Any = self._client.socket()
        try:
            return "" if sock is None else str(sock.getsockname()[0])
        except OSError:
            return ""

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Send the PUBACK of an incoming message, which is read."""
        self._unread_bytes -= _size(message.payload)
        self._client.ack(message.mid, message.qos)

    def lost(self) -> Transient:
        """The error that says why the connection ended."""
        cause = self._disconnected.exception() if self._disconnected.done() else None
        return Transient(f"connection to {self._endpoint} lost: {cause or 'closed'}")

    def _stalled(self, name: str, timeout_s: float) -> None:
        self._give_up(aiomqtt.MqttError(f"no {name} in {timeout_s:g} s"))

    def _give_up(self, error: Exception) -> None:
        """Treat the connection as gone: everyone who waits on it hears of it."""
        if not self._disconnected.done():
            self._disconnected.set_exception(error)
        self._fail_waiting(self._disconnected)

    def _fail_waiting(self, _disconnected: "asyncio.Future[None]") -> None:
        messages = [*self._publishing.values(), *self._queued]
        waiting: list[asyncio.Future[Any]] = [*(each.answer for each in messages), *self._subscribing.values()]
        self._publishing.clear()
        self._queued.clear()
        self._subscribing.clear()
        for answer in waiting:
            _fail(answer, self.lost())

    def _open_socket(self, opened: "asyncio.Future[None]") -> None:
        """In the connecting thread: DNS, TCP, TLS, CONNECT."""
        failure: OSError | ValueError | None = None
        try:
            self._client_connect()
        except (OSError, ValueError) as error:  # ValueError: host names that IDNA refuses
            failure = error

        def tell() -> None:
            if opened.done():
                return
            if failure is None:
                opened.set_result(None)
            else:
                opened.set_exception(failure)

        with contextlib.suppress(RuntimeError):  # the event loop is closed already: nobody is left to tell
            self._loop.call_soon_threadsafe(tell)

    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # Small packets in both directions: with Nagle's algorithm each waits for the peer's delayed ACK, 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._gate:
            if not self._closed:
                super()._on_socket_open(client, userdata, sock)
                return
        sock.close()
        raise ConnectionAbortedError("closed while connecting")

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        with self._gate:
            if not self._closed or threading.current_thread() is self._loop_thread:
                super()._on_socket_register_write(client, userdata, sock)

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: Any,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self._limits = Limits(
            getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM),
            getattr(properties, "MaximumPacketSize", MQTT_MAXIMUM_PACKET_BYTES),
        )
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: Any,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():  # aiomqtt would wait for the CONNACK that cannot come any more
            self._give_up(aiomqtt.MqttCodeError(reason_code))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_subscribe(
        self,
        client: PahoClient,
        userdata: Any,
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Properties | None = None,
    ) -> None:
        answer = self._subscribing.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(reason_codes)

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        self._unread_bytes += _size(message.payload)
        limit = _UNREAD_PACKETS * self._endpoint.maximum_packet_bytes
        if self._unread_bytes > limit:
            self._give_up(aiomqtt.MqttError(f"more than {limit} bytes of messages wait to be read"))
            return
        super()._on_message(client, userdata, message)

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        message = self._publishing.pop(mid, None)
        if message is None:
            return
        while self._queued and len(self._publishing) < self._limits.receive_maximum:
            self._publish(self._queued.popleft())
        if message.answer.done():  # given up by who asked
            return
        code = reason_code.value
        if code < REFUSED:
            message.answer.set_result(code)
            return
        remedy = ": check the broker's ACL" if code == NOT_AUTHORISED else ""
        said = f"{self._endpoint} refused a message for {message.topic}: {reason_code.getName()} (0x{code:02x}){remedy}"
        _fail(message.answer, PublishRefused(said, code))


def _size(payload: object) -> int:
    return len(payload) if isinstance(payload, bytes | bytearray) else 0


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    """Tell whoever waits, if anybody does still."""
    if not answer.done():
        answer.set_exception(error)
        _retrieved(answer)


def _retrieved(future: "asyncio.Future[Any]") -> None:
    """Mark a future's exception as seen: it is reported through whoever waits, and there may be nobody."""
    if not future.cancelled():
        future.exception()
