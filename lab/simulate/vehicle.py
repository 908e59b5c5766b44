"""Simulates one vehicle with its own key, certificate and MQTT connection.

Batches are really sealed, and the signatures of the acknowledgements are really verified.

Invariant: as in the agent, a batch is kept until a signed acknowledgement names it.  The batch is sent again if the
acknowledgement does not come or the connection is lost.  A virtual vehicle has no spool, so it keeps its batches in
memory.
"""

import asyncio
import contextlib
import math
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.errors import Permanent, Transient, ungrouped
from agent.formats import topics
from agent.formats.down.bundle import TIMESTAMP, SyncRequest, Versions, build_request, parse_bundle
from agent.formats.topics import Lane
from agent.formats.up.acks import verify_ack
from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.encode import encode_catalogue, encode_window
from agent.formats.up.recipient import RecipientPublicKey
from agent.formats.up.seal import Header, seal
from agent.link.endpoint import Endpoint
from agent.link.mqtt import Connection, connect
from lab.simulate.windows import Recording

ACK_TIMEOUT_S: Final = 60.0
"""Seconds until an unacknowledged batch is sent again.  The time doubles with each attempt, as in the agent."""

RECONNECT_S: Final = (0.5, 3.0)
ASK_AGAIN_S: Final = (20.0, 40.0)
"""Seconds until a request without an answer is sent again, as in the agent."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Holds the data that all vehicles share: the fleet's public keys, and the windows to send."""

    recipient: RecipientPublicKey
    acks_key: Ed25519PublicKey
    recording: Recording


@dataclass(slots=True)
class _Waiting:
    topic: str
    envelope: bytes
    sealed_s: float  # time of sealing, monotonic clock
    due_s: float = math.inf  # time of the next attempt, monotonic clock
    times: int = 0


@dataclass(slots=True)
class Sent:
    """Counts the batches that one vehicle sent, and the answers.

    `samples` maps the sequence number of each batch to its number of samples.  `refused` maps the sequence number of
    each refused batch to the reason.  `acknowledged_s` has, for each batch with samples, the times of its sealing and
    of its acknowledgement.  `asked_s` is the time of the request after a nudge, and `answered_s` the time of the bundle
    that answered it; both are 0 before.  Times are those of the monotonic clock.
    """

    samples: dict[int, int] = field(default_factory=dict)
    size_bytes: int = 0
    acknowledged: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    again: int = 0  # batches that were sent again
    reconnects: int = 0
    acknowledged_s: list[tuple[float, float]] = field(default_factory=list)
    asked_s: float = 0.0
    answered_s: float = 0.0
    bundle_bytes: int = 0


class Vehicle:
    """Simulates one vehicle.  `run` keeps it connected, and `send` makes and sends one batch."""

    def __init__(self, name: str, key: ec.EllipticCurvePrivateKey, endpoint: Endpoint, fleet: Fleet) -> None:
        self.name = name
        self.epoch = secrets.token_hex(16)
        self.sent = Sent()
        self.online = asyncio.Event()
        self._answered = asyncio.Event()
        self._key = key
        self._endpoint = endpoint
        self._fleet = fleet
        self._waiting: dict[int, _Waiting] = {}
        self._next_seq = 1
        self._connection: Connection | None = None

    @property
    def waiting(self) -> int:
        """Return the number of batches that are not acknowledged yet."""
        return len(self._waiting)

    async def run(self, connecting: asyncio.Semaphore) -> None:
        """Keep the vehicle connected until cancelled.  On each new connection, all waiting batches are resent.

        Raises: Permanent if the vehicle's key or certificate cannot be used.
        """
        while True:
            with contextlib.suppress(Transient), ungrouped():
                await self._once(connecting)
            self.online.clear()
            self.sent.reconnects += 1
            await asyncio.sleep(random.uniform(*RECONNECT_S))  # noqa: S311 (spreads load)

    async def introduce(self) -> None:
        """Send a batch with the catalogue that all later batches refer to."""
        clock = _clock()
        body = encode_catalogue(self._fleet.recording.catalogue, clock.wall_us, clock)
        await self._seal_and_send(Lane.EVENTS, body, samples=0)

    async def send(self, number: int) -> None:
        """Make a batch from window `number` of the recording, moved so that the window ends now, and send the batch."""
        clock = _clock()
        recording = self._fleet.recording
        window = recording.window(number, clock.wall_us, clock)
        body = encode_window(window, recording.catalogue)
        await self._seal_and_send(Lane.LIVE, body, samples=window.samples)

    async def send_again(self) -> None:
        """Send again all batches that were not acknowledged in time."""
        now_s = time.monotonic()
        await self._resend([seq for seq, batch in self._waiting.items() if batch.due_s < now_s])

    async def _once(self, connecting: asyncio.Semaphore) -> None:
        async with contextlib.AsyncExitStack() as stack:
            # The semaphore limits how many handshakes run at the same time, but not how many connections are open.
            async with connecting:
                connection = await stack.enter_async_context(connect(self._endpoint))
                await connection.subscribe([topics.ack(self.name), topics.push(self.name), topics.NUDGE])
            self._connection = connection
            stack.callback(self._gone)
            # As in the agent, a new connection resends the batches that the last connection may have lost.
            again = asyncio.create_task(self._resend(list(self._waiting)))
            self.online.set()
            stack.callback(again.cancel)
            async with asyncio.TaskGroup() as asking:
                async for topic, payload in connection.messages():
                    if topic == topics.NUDGE:
                        # The request is a task of its own, because acknowledgements must not wait for the broker.
                        asking.create_task(self._ask(connection))
                    elif topic == topics.push(self.name):
                        self._take_bundle(payload)
                    else:
                        self._hear(payload)

    async def _ask(self, connection: Connection) -> None:
        """Ask for the whole release, as a vehicle from the factory does, and ask again until the bundle arrives."""
        self.sent.asked_s, self.sent.answered_s = time.monotonic(), 0.0
        request = build_request(SyncRequest(self.name, Versions()))
        while not self.sent.answered_s:
            self._answered.clear()
            await connection.publish(topics.sync(self.name), request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(*ASK_AGAIN_S)):  # noqa: S311 (spreads load)
                    await self._answered.wait()

    def _take_bundle(self, payload: bytes) -> None:
        if TIMESTAMP in parse_bundle(payload):
            self.sent.answered_s, self.sent.bundle_bytes = time.monotonic(), len(payload)
            self._answered.set()

    def _gone(self) -> None:
        self._connection = None

    async def _resend(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self.sent.again += 1
            await self._publish(seq)

    async def _seal_and_send(self, lane: Lane, body: bytes, *, samples: int) -> None:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        recipient = self._fleet.recipient
        sealed_s = time.monotonic()
        header = Header(self.name, self.epoch, seq, lane, recipient.key_id, recipient.suite, time.time_ns() // 1_000)
        envelope = seal(header, body, self._key, recipient)
        topic = topics.up(topics.partition_of(self.name), self.name, lane)
        self.sent.samples[seq] = samples
        self.sent.size_bytes += len(envelope)
        self._waiting[seq] = _Waiting(topic, envelope, sealed_s)
        await self._publish(seq)

    async def _publish(self, seq: int) -> None:
        batch = self._waiting.get(seq)
        if batch is None or self._connection is None:
            return  # The batch was acknowledged meanwhile, or the next connection sends it.
        batch.due_s = time.monotonic() + ACK_TIMEOUT_S * 2.0**batch.times
        batch.times += 1
        with contextlib.suppress(Transient):
            await self._connection.publish(batch.topic, batch.envelope)

    def _hear(self, payload: bytes) -> None:
        ack = verify_ack(payload, self._fleet.acks_key)
        if (ack.vehicle, ack.epoch) != (self.name, self.epoch):
            return
        # The catalogue was acknowledged in `introduce`, so the receiver must not ask for a catalogue now.
        if ack.wanted:
            raise Permanent(
                f"The receiver asks vehicle {self.name} for a catalogue that it has acknowledged already. "
                "Check the log of the receiver."
            )
        now_s = time.monotonic()
        for seq in (*(seq for seq, _ in ack.stored), *ack.refused):
            batch = self._waiting.pop(seq, None)
            if batch is None:
                continue
            if seq in ack.refused:
                self.sent.refused[seq] = ack.refused[seq].reason
                continue
            self.sent.acknowledged += 1
            if self.sent.samples[seq]:
                self.sent.acknowledged_s.append((batch.sealed_s, now_s))


def _clock() -> Clock:
    return Clock(ClockQuality.NETWORK, "", time.time_ns() // 1_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000)
