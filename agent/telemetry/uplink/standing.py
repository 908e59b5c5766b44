"""Holds the state that the uplink keeps from one connection to the next.

The state of one connection is in `sending` and `schedule`.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.formats import topics
from agent.formats.topics import Lane
from agent.telemetry.spool.batch import Entry
from agent.telemetry.spool.reader import Reader
from agent.telemetry.uplink.bucket import TokenBucket
from agent.telemetry.uplink.late_answers import LateAnswers
from agent.telemetry.uplink.link_gate import LinkGate
from agent.telemetry.uplink.schedule import Pace
from agent.telemetry.uplink.unanswered import Key, Unanswered

AckMode = Literal["receiver", "broker"]


class Route(msgspec.Struct, frozen=True):
    """The topics to which batches go, and the acknowledgement that removes them from the spool.

    If `ack` is "receiver", only the receiver's signed acknowledgement removes a batch, and `acks_key` verifies it.  If
    `ack` is "broker", the broker's PUBACK removes the batch.
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

    `published` and `published_bytes` count all messages that the broker accepted.  `resent` counts batches that were
    sent again.  `acknowledged` counts batches that left the spool because they were acknowledged.  `refused` counts
    batches that left the spool because the receiver refused them.  `supplied` counts catalogues that were sent because
    the receiver asked for them.  `publish_refused` counts messages that the broker refused.  `publish_unheard` counts
    batches that the broker accepted although no client subscribes (`ack = "broker"`).  These batches stay in the spool.
    `untrusted_acks` counts acknowledgements that were forged, malformed or for another vehicle.  `acked_others` counts
    batches that were acknowledged under the number of a waiting batch, but with another digest.
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
    acked_others: int = 0


@dataclass(slots=True)
class Standing:
    """Holds the objects and the state that outlive a connection.

    `clock_s` gives monotonic seconds, and `jitter` a random number from 0 to 1.
    """

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
    """Batches that the broker accepted (`ack = "broker"`) and that are still in the spool."""
    late: LateAnswers = field(default_factory=LateAnswers)

    def __post_init__(self) -> None:
        self.bucket = TokenBucket(self.pace.backlog_bytes_s)
