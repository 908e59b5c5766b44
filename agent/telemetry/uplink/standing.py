"""What the uplink keeps from one connection to the next.  A connection's own state is in `sending` and `schedule`."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.formats import topics
from agent.formats.topics import Lane
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.reader import Reader
from agent.telemetry.uplink.bucket import TokenBucket
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.unanswered import Key, Unanswered

AckMode = Literal["receiver", "broker"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where batches go and who may acknowledge them.

    `ack`: whether a batch leaves the spool on the receiver's signed acknowledgement (`acks_key` verifies it), or on the
    broker's PUBACK.
    """

    vehicle: str
    partition: int
    acks_key: Ed25519PublicKey
    ack: AckMode = "receiver"

    def topic(self, lane: Lane) -> str:
        """Return the topic of batches that were sealed for `lane`."""
        return topics.up(self.partition, self.vehicle, lane)


@dataclass(slots=True)
class UplinkCounts:
    """Running totals since the start of the process.

    `published` and `published_bytes` count every sending that the broker accepted, `resent` those of batches whose
    acknowledgement was overdue; `acknowledged` and `refused` the batches that left the spool, and why; `supplied` the
    catalogues that the receiver asked for; `publish_refused` what the broker refused; `publish_unheard` what it
    accepted although nobody subscribes (`ack = "broker"`: the batch stays); `untrusted_acks` the acknowledgements that
    were forged, malformed or another vehicle's.
    """

    published: int = 0
    published_bytes: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    supplied: int = 0
    publish_refused: int = 0
    publish_unheard: int = 0
    untrusted_acks: int = 0


@dataclass(slots=True)
class Standing:
    """The objects and the state that outlive a connection.  `clock_s` is monotonic; `jitter` gives 0 to 1."""

    spool: Reader
    route: Route
    pace: Pace
    gate: LinkGate
    clock_s: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    unanswered: Unanswered = field(default_factory=Unanswered)
    counts: UplinkCounts = field(default_factory=UplinkCounts)
    bucket: TokenBucket = field(init=False)
    taken: dict[Key, Entry] = field(default_factory=dict)
    """Batches that the broker took (`ack = "broker"`) and the spool has not forgotten yet."""

    def __post_init__(self) -> None:
        self.bucket = TokenBucket(self.pace.backlog_bytes_s)
