"""MQTT topics of the fleet: build them, and take apart those that the receiver subscribes to.  Pure.

Invariant: topics have at most 7 slashes and messages are not retained, so mosquitto, AWS IoT Core and Azure Event Grid
all carry them.  A vehicle's name is in each of its topics, so a broker's access list can restrict it to its own.

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
# Receivers share the fleet by partition.  The number never changes, because enrolment writes the partition down.
PARTITIONS: Final = 16
ALL_SYNC: Final = f"{ROOT}/sync/+"

_VEHICLE: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Lane(IntEnum):
    """The class of traffic that a batch travels in; the numbers are those of the header."""

    EVENTS = 1
    LIVE = 2
    BACKLOG = 3

    @property
    def label(self) -> str:
        """Return the name in topics: `events`, `live` or `backlog`."""
        return self.name.lower()


_LANES: Final = {lane.label: lane for lane in Lane}


@dataclass(frozen=True, slots=True)
class UpTopic:
    """The elements of `hu/v1/up/<partition>/<vehicle>/<lane>`."""

    partition: int
    vehicle: str
    lane: Lane


def is_vehicle(text: str) -> bool:
    """Tell whether `text` is a vehicle's pseudonym: a UUID in lower case."""
    return _VEHICLE.fullmatch(text) is not None


def partition_of(vehicle: str, partitions: int = PARTITIONS) -> int:
    """Return the partition that enrolment gives a vehicle: SHA-256 of the pseudonym modulo `partitions`."""
    return int.from_bytes(hashlib.sha256(vehicle.encode()).digest()[:8], "big") % partitions


def up(partition: int, vehicle: str, lane: Lane) -> str:
    """Return the topic on which a vehicle publishes its batches of `lane`."""
    return f"{ROOT}/up/{partition}/{vehicle}/{lane.label}"


def up_filter(partition: int) -> str:
    """Return the subscription to every batch of one partition."""
    return f"{ROOT}/up/{partition}/#"


def ack(vehicle: str) -> str:
    """Return the topic on which a vehicle is told what is stored."""
    return f"{ROOT}/ack/{vehicle}"


def sync(vehicle: str) -> str:
    """Return the topic on which a vehicle says what it has and asks for what is missing."""
    return f"{ROOT}/sync/{vehicle}"


def push(vehicle: str) -> str:
    """Return the topic on which a vehicle receives bundles."""
    return f"{ROOT}/push/{vehicle}"


def parse_up(topic: str) -> UpTopic:
    """Take an up topic apart.  Raises: Untrusted for any other topic."""
    match topic.split("/"):
        case ["hu", "v1", "up", partition, vehicle, lane] if (
            re.fullmatch("0|[1-9][0-9]{0,4}", partition) and is_vehicle(vehicle) and lane in _LANES
        ):
            return UpTopic(int(partition), vehicle, _LANES[lane])
    raise Untrusted(f"topic {topic[:120]!r} is not {ROOT}/up/<partition>/<vehicle>/<lane>")


def parse_sync(topic: str) -> str:
    """Return the vehicle of a sync topic.  Raises: Untrusted for any other topic."""
    match topic.split("/"):
        case ["hu", "v1", "sync", vehicle] if is_vehicle(vehicle):
            return vehicle
    raise Untrusted(f"topic {topic[:120]!r} is not {ROOT}/sync/<vehicle>")
