"""MQTT topics of the fleet: building them, and reading back those that the receiver subscribes to.  Pure.

Invariant: at most 7 slashes and no retained messages, so that mosquitto, AWS IoT Core and Azure Event Grid
all carry them; a vehicle's name is in each of its topics, so that a broker's ACL can hold it to its own.

    hu/v1/up/<partition>/<vehicle>/<lane>   vehicle -> fleet   a sealed batch
    hu/v1/ack/<vehicle>                     fleet -> vehicle   a signed acknowledgement
    hu/v1/sync/<vehicle>                    vehicle -> fleet   what I have: send what is missing
    hu/v1/push/<vehicle>                    fleet -> vehicle   a signed bundle
    hu/v1/nudge                             fleet -> vehicles  there is something new
"""

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agent.errors import Untrusted

ROOT: Final = "hu/v1"
NUDGE: Final = f"{ROOT}/nudge"
PARTITIONS: Final = 16  # receivers share the fleet by partition; fixed per fleet, as enrolment writes it down
ALL_SYNC: Final = f"{ROOT}/sync/+"

_VEHICLE: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Lane(IntEnum):
    """Which way a batch travels; the numbers are those of the header."""

    EVENTS = 1
    LIVE = 2
    BACKLOG = 3

    @property
    def label(self) -> str:
        """As it stands in topics: `events`, `live`, `backlog`."""
        return self.name.lower()


_LANES: Final = {lane.label: lane for lane in Lane}


@dataclass(frozen=True, slots=True)
class UpTopic:
    """The parts of `hu/v1/up/<partition>/<vehicle>/<lane>`."""

    partition: int
    vehicle: str
    lane: Lane


def is_vehicle(text: str) -> bool:
    """Whether `text` is a vehicle's pseudonym: a UUID in lower case."""
    return _VEHICLE.fullmatch(text) is not None


def partition_of(vehicle: str, partitions: int = PARTITIONS) -> int:
    """The partition that enrolment gives a vehicle: SHA-256 of the pseudonym modulo `partitions`."""
    return int.from_bytes(hashlib.sha256(vehicle.encode()).digest()[:8], "big") % partitions


def up(partition: int, vehicle: str, lane: Lane) -> str:
    """Where a vehicle publishes its batches of `lane`."""
    return f"{ROOT}/up/{partition}/{vehicle}/{lane.label}"


def up_filter(partition: int) -> str:
    """Subscription to every batch of one partition."""
    return f"{ROOT}/up/{partition}/#"


def ack(vehicle: str) -> str:
    """Where a vehicle hears what is stored."""
    return f"{ROOT}/ack/{vehicle}"


def sync(vehicle: str) -> str:
    """Where a vehicle says what it has and asks for what is missing."""
    return f"{ROOT}/sync/{vehicle}"


def push(vehicle: str) -> str:
    """Where a vehicle receives bundles."""
    return f"{ROOT}/push/{vehicle}"


def parse_up(topic: str) -> UpTopic:
    """Take an up topic apart.  Raises Untrusted where it is not one of ours."""
    match topic.split("/"):
        case ["hu", "v1", "up", partition, vehicle, lane] if (
            re.fullmatch("0|[1-9][0-9]{0,4}", partition) and is_vehicle(vehicle) and lane in _LANES
        ):
            return UpTopic(int(partition), vehicle, _LANES[lane])
    raise Untrusted(f"topic {topic[:120]!r} is not {ROOT}/up/<partition>/<vehicle>/<lane>")


def parse_sync(topic: str) -> str:
    """The vehicle of a sync topic.  Raises Untrusted where it is not one of ours."""
    match topic.split("/"):
        case ["hu", "v1", "sync", vehicle] if is_vehicle(vehicle):
            return vehicle
    raise Untrusted(f"topic {topic[:120]!r} is not {ROOT}/sync/<vehicle>")
