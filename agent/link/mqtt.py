"""Open one MQTT 5 connection over mutual TLS.  No other file of the agent imports aiomqtt or paho.

Invariants:

- A publish succeeds only if its PUBACK accepts the message (reason code below 0x80).
- The limits in the broker's CONNACK are respected.
- A connection that has ended leaves no task, no socket and no thread that touches the event loop.
- A message is never sent over a later connection unless the caller publishes it again.  Each connection therefore has a
  fresh client, a clean start and session expiry 0.  No message is sent as retained, and retained messages of others
  are ignored.

`_Client` works around these flaws of aiomqtt 2.5 (docs/decisions/0015-aiomqtt-3.md says what aiomqtt 3 changes):

- aiomqtt drops the PUBACK's reason code, so a denied publish looks like a success.
- aiomqtt waits for its whole timeout if the connection ends before the PUBACK, SUBACK or CONNACK arrives.
- A CONNACK that refuses or never arrives leaves the socket, its reader and a task behind.
- A cancelled connect leaves a thread in the default executor, and a stopping process waits for that thread.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiomqtt
import structlog
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.errors import Transient
from agent.link.connection import (
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORISED,
    PACKET_TOO_LARGE,
    REFUSED,
    Connection,
    Limits,
    PublishRefused,
)
from agent.link.endpoint import Endpoint, connect_error, socket_class, tls_context
from agent.link.packets import Inspector, PacketRefusedError
from agent.link.publishing import Message, Publishing, fail, mark_retrieved

MQTT_MAXIMUM_PACKET_BYTES: Final = 268_435_460  # the largest packet that MQTT can express, with its fixed header
DEFAULT_RECEIVE_MAXIMUM: Final = 65_535  # if CONNACK names no limit (MQTT 5, 3.2.2.3.3)
_MESSAGE_BYTES: Final = 2_048  # A message without any payload takes up to this much memory.
_UNSENT_PACKETS: Final = 100_000  # paho takes some 50 MB for them; 65,535 publishes may be waiting at most
# Reason codes of a DISCONNECT (MQTT 5, 3.14.2.1), as the cause and a hint.  paho also gives 0x80 for a connection that
# ends without a DISCONNECT, and mosquitto 2.0.11 sends it when another client takes over the client id.
_ENDED: Final = {
    0x80: (
        "the broker gave no reason",
        "; if this goes on, check that the broker runs; if it does, another program may use the same identity",
    ),
    0x8B: ("the broker shuts down", ""),
    0x8E: ("another client took over the session", "; if this goes on, another program may use the same identity"),
}
_SUBSCRIBE: Final = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
_CLOSE_S: Final = 1.0  # DISCONNECT has this long to be sent before the connection is cut.
__all__ = [
    "NO_MATCHING_SUBSCRIBERS",
    "PACKET_TOO_LARGE",
    "Connection",
    "Endpoint",
    "Limits",
    "PublishRefused",
    "connect",
]


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[Connection]:
    """Yield an open connection to the broker, and disconnect when the block ends.

    Raises: Permanent if our own files are at fault (missing, not matching, expired), Transient for a failure that may
    pass by itself.  Each error names the endpoint or the file, and the remedy.
    """
    client = _Client(endpoint, tls_context(endpoint, datetime.now(UTC)))
    try:
        limits = await client.open()
        yield Connection(endpoint, client, limits)
    finally:
        await client.close()


_log = structlog.get_logger()


class _Client(aiomqtt.Client):
    """Drives one paho client on the event loop through aiomqtt, for one connection."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's gap
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = endpoint.receive_maximum
        properties.MaximumPacketSize = endpoint.maximum_packet_bytes
        self._faults: list[OSError] = []
        context.sslsocket_class = socket_class(self._faults, Inspector(endpoint.maximum_packet_bytes))
        super().__init__(
            endpoint.host,
            endpoint.port,
            identifier=endpoint.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=endpoint.keepalive_s,
            clean_start=True,
            properties=properties,
            tls_context=context,
            max_inflight_messages=0,  # `Publishing` enforces the limit of CONNACK, so that paho never queues
        )
        self._client.connect_timeout = endpoint.timeout_s
        self._client.manual_ack_set(True)
        self._endpoint = endpoint
        self._limits = Limits(DEFAULT_RECEIVE_MAXIMUM, MQTT_MAXIMUM_PACKET_BYTES)
        self._publishing = Publishing(self._loop, self._send, self._stalled)
        self._subscribing: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._unread_bytes = 0
        self._loop_thread = threading.current_thread()
        self._gate = threading.Lock()  # guards `_closed` between the connecting thread and `close`
        self._closed = False
        self._connected.add_done_callback(mark_retrieved)
        self._disconnected.add_done_callback(mark_retrieved)
        self._disconnected.add_done_callback(self._fail_waiting)

    async def open(self) -> Limits:
        """Connect, wait for a CONNACK that accepts, and return the broker's limits.

        The caller must call `close` afterwards, even if this method fails.  Raises: Transient.
        """
        opened: asyncio.Future[None] = self._loop.create_future()
        opened.add_done_callback(mark_retrieved)
        # The thread is a daemon, because a thread that hangs in DNS or a handshake must not delay the process's end.
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
                raise Transient(
                    f"broker {self._endpoint} refused the connection: {refusal}; see the broker's log"
                ) from refusal
            return self._limits
        if self._disconnected.done():
            cause = self._faults[0] if self._faults else self._disconnected.exception()
            raise connect_error(self._endpoint, cause) from cause
        raise Transient(
            f"{self._endpoint} sent no CONNACK in {self._endpoint.timeout_s:g} s; check that it is an MQTT broker"
        )

    async def close(self) -> None:
        """Send DISCONNECT if the connection is open, close the socket, and remove everything from the event loop."""
        with self._gate:
            self._closed = True
        online = self._connected.done() and self._connected.exception() is None
        if online and not self._disconnected.done():
            self._client.disconnect()
            await asyncio.wait({self._disconnected}, timeout=_CLOSE_S)
        await asyncio.sleep(0)  # Callbacks that the connecting thread scheduled before `_closed` was set run first.
        self._client._sock_close()  # paho has no public way to drop a connection without waiting for the peer.
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        self._connected.cancel()
        self._publishing.close()
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait({self._misc_task})

    def publish_acknowledged(self, topic: str, payload: bytes, timeout_s: float) -> "asyncio.Future[int]":
        """Publish a message at QoS 1; return a future of the reason code in its PUBACK."""
        return self._publishing.publish(topic, payload, timeout_s)

    def _send(self, message: Message) -> int:
        """Hand a message to paho and return its packet identifier.  Raises: Transient if the connection has ended."""
        # While disconnected, paho would keep the message and send it over a later connection.
        if self._disconnected.done():
            raise self.lost()
        info = self._client.publish(message.topic, message.payload, qos=1)
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self.lost()
        return info.mid

    async def subscribe_acknowledged(self, topics: Sequence[str], timeout_s: float) -> Sequence[tuple[int, str]]:
        """Subscribe at QoS 1; return, for each topic, the reason code in the SUBACK and the code's name."""
        if self._disconnected.done():
            raise self.lost()
        code, mid = self._client.subscribe([(topic, _SUBSCRIBE) for topic in topics])
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self.lost()
        answer: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._subscribing[mid] = answer
        timer = self._loop.call_later(timeout_s, self._stalled, "SUBACK", timeout_s)
        try:
            return [(reason.value, reason.getName()) for reason in await answer]
        finally:
            timer.cancel()

    def own_address(self) -> str:
        """Return the local IP address of the connection, or an empty string if the connection has ended."""
        sock: Any = self._client.socket()
        try:
            return "" if sock is None else str(sock.getsockname()[0])
        except OSError:
            return ""

    async def received(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield incoming messages, and acknowledge each when the next one is asked for."""
        try:
            async for message in self.messages:
                if message.retain:
                    # An attacker could leave a message at the broker that harms every reader again at each connection.
                    _log.warning("retained_message_ignored", topic=str(message.topic)[:120])
                else:
                    yield str(message.topic), message.payload if isinstance(message.payload, bytes) else b""
                # The message is acknowledged only now, when it has been handled.  aiomqtt would do so earlier.
                self._unread_bytes -= _size(message.payload)
                self._client.ack(message.mid, message.qos)
                # A broker that sends but does not read would let the acknowledgements fill the memory.
                if len(self._client._out_packet) > _UNSENT_PACKETS:
                    self._give_up(aiomqtt.MqttError(f"the broker does not read; {_UNSENT_PACKETS} packets wait"))
        except aiomqtt.MqttError as error:
            raise self.lost() from error

    def lost(self) -> Transient:
        """Return the error that says why the connection ended."""
        cause = self._disconnected.exception() if self._disconnected.done() else None
        if self._faults and isinstance(self._faults[0], PacketRefusedError):
            return connect_error(self._endpoint, self._faults[0])
        rc = cause.rc if isinstance(cause, aiomqtt.MqttCodeError) else None
        code = rc.value if isinstance(rc, ReasonCode) else rc
        why, hint = _ENDED.get(code or 0, (str(cause or "closed"), ""))
        return Transient(f"the connection to {self._endpoint} was lost ({why}); it connects again{hint}")

    def _stalled(self, name: str, timeout_s: float) -> None:
        self._give_up(aiomqtt.MqttError(f"no {name} in {timeout_s:g} s"))

    def _give_up(self, error: Exception) -> None:
        """End the connection, and fail every future that waits for an answer."""
        if not self._disconnected.done():
            self._disconnected.set_exception(error)
        # The messages of a flood would otherwise be read until `close` is called.  paho holds a lock during its
        # callbacks, so the socket is closed after them.
        self._loop.call_soon_threadsafe(self._client._sock_close)
        self._fail_waiting(self._disconnected)

    def _fail_waiting(self, _disconnected: "asyncio.Future[None]") -> None:
        self._publishing.fail(self.lost())
        for answer in self._subscribing.values():
            fail(answer, self.lost())
        self._subscribing.clear()

    def _open_socket(self, opened: "asyncio.Future[None]") -> None:
        """Resolve the name, open TCP and TLS, and send CONNECT.  Blocking; runs in the connecting thread."""
        failure: Exception | None = None
        try:
            self._client_connect()
        # OSError is expected, and so is ValueError for host names that IDNA refuses.  Any other error is handed to the
        # caller as well.  It would otherwise end this thread silently, and `open` would wait for ever.
        except Exception as error:  # noqa: BLE001
            failure = error

        def tell() -> None:
            if opened.done():
                return
            if failure is None:
                opened.set_result(None)
            else:
                opened.set_exception(failure)

        with contextlib.suppress(RuntimeError):  # The event loop is closed, because the process is about to end.
            self._loop.call_soon_threadsafe(tell)

    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # Packets are small in both directions.  With Nagle's algorithm, each would wait 40 ms for the peer's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._gate:
            if not self._closed:
                super()._on_socket_open(client, userdata, sock)
                return
        sock.close()
        raise ConnectionAbortedError("the connection was closed while it was being made")

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
        self._publishing.receive_maximum = self._limits.receive_maximum
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: Any,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():  # aiomqtt would wait for a CONNACK that can no longer arrive.
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
        limit = self._endpoint.unread_bytes
        if self._unread_bytes > limit:
            self._give_up(aiomqtt.MqttError(f"more than {limit} bytes of messages wait to be read"))
            return
        message.properties = None  # Nothing reads them, and they would be memory that `_size` does not count.
        super()._on_message(client, userdata, message)

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        message = self._publishing.take(mid)
        if message is None:
            return
        code = reason_code.value
        if code < REFUSED:
            message.answer.set_result(code)
            return
        remedy = "; check the broker's ACL" if code == NOT_AUTHORISED else "; see the broker's log"
        said = f"{self._endpoint} refused a message for {message.topic}: {reason_code.getName()} (0x{code:02x}){remedy}"
        fail(message.answer, PublishRefused(said, code))


def _size(payload: object) -> int:
    return _MESSAGE_BYTES + (len(payload) if isinstance(payload, bytes | bytearray) else 0)
