"""Build the MQTT topics of the fleet, and parse the topics that the receiver subscribes to.  Pure.

    hu/v1/up/<partition>/<vehicle>/<lane>   vehicle -> fleet   a sealed batch
    hu/v1/ack/<vehicle>                     fleet -> vehicle   a signed acknowledgement
    hu/v1/sync/<vehicle>                    vehicle -> fleet   a request for the files that the vehicle lacks
    hu/v1/push/<vehicle>                    fleet -> vehicle   a bundle of signed files
    hu/v1/fetch/<vehicle>                   vehicle -> fleet   a request for chunks of large documents
    hu/v1/chunk/<vehicle>                   fleet -> vehicle   one chunk of a large document
    hu/v1/nudge                             fleet -> vehicles  a notice that something new is published

Invariant: topics have at most 7 slashes and messages are not retained, so mosquitto, AWS IoT Core and Azure Event Grid
all carry them.  Every topic of a single vehicle contains the vehicle's pseudonym, so the access list of a broker can
restrict each vehicle to its own topics.
"""

import hashlib
import re
from enum import IntEnum
from typing import Final

import msgspec

from agent.errors import Untrusted

ROOT: Final = "hu/v1"
NUDGE: Final = f"{ROOT}/nudge"
# Receivers divide the fleet by partition.  The number of partitions never changes, because every identity folder
# records the partition of its vehicle.
PARTITIONS: Final = 16
ALL_SYNC: Final = f"{ROOT}/sync/+"
ALL_FETCH: Final = f"{ROOT}/fetch/+"

_VEHICLE: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Lane(IntEnum):
    """The lane of a batch, which decides how early the batch is sent.

    The numbers are part of the format of the header.
    """

    EVENTS = 1
    LIVE = 2
    BACKLOG = 3

    @property
    def label(self) -> str:
        """Return the name of the lane in topics: `events`, `live` or `backlog`."""
        return self.name.lower()


_LANES: Final = {lane.label: lane for lane in Lane}


class UpTopic(msgspec.Struct, frozen=True):
    """Holds the elements of a topic `hu/v1/up/<partition>/<vehicle>/<lane>`."""

    partition: int
    vehicle: str
    lane: Lane


def is_vehicle(text: str) -> bool:
    """Return whether `text` is the pseudonym of a vehicle: a UUID in lower case."""
    return _VEHICLE.fullmatch(text) is not None


def partition_of(vehicle: str, partitions: int = PARTITIONS) -> int:
    """Return the partition that enrolment gives a vehicle.

    The partition is the first 8 bytes of the pseudonym's SHA-256, as a big-endian number, modulo `partitions`.
    """
    return int.from_bytes(hashlib.sha256(vehicle.encode()).digest()[:8], "big") % partitions


def up(partition: int, vehicle: str, lane: Lane) -> str:
    """Return the topic on which a vehicle publishes its batches of `lane`."""
    return f"{ROOT}/up/{partition}/{vehicle}/{lane.label}"


def up_filter(partition: int) -> str:
    """Return the topic filter that matches every batch of one partition."""
    return f"{ROOT}/up/{partition}/#"


def ack(vehicle: str) -> str:
    """Return the topic on which a vehicle receives acknowledgements."""
    return f"{ROOT}/ack/{vehicle}"


def sync(vehicle: str) -> str:
    """Return the topic on which a vehicle lists the files that it has and asks for missing files."""
    return f"{ROOT}/sync/{vehicle}"


def push(vehicle: str) -> str:
    """Return the topic on which a vehicle receives bundles."""
    return f"{ROOT}/push/{vehicle}"


def fetch(vehicle: str) -> str:
    """Return the topic on which a vehicle asks for chunks of large documents."""
    return f"{ROOT}/fetch/{vehicle}"


def chunk(vehicle: str) -> str:
    """Return the topic on which a vehicle receives chunks of large documents."""
    return f"{ROOT}/chunk/{vehicle}"


def parse_up(topic: str) -> UpTopic:
    """Return the elements of an up topic.  Raises: Untrusted for any other topic."""
    match topic.split("/"):
        case ["hu", "v1", "up", partition, vehicle, lane] if (
            re.fullmatch("0|[1-9][0-9]{0,4}", partition) and is_vehicle(vehicle) and lane in _LANES
        ):
            return UpTopic(int(partition), vehicle, _LANES[lane])
    raise Untrusted(f"The topic {topic[:120]!r} does not have the form {ROOT}/up/<partition>/<vehicle>/<lane>.")


def parse_sync(topic: str) -> str:
    """Return the vehicle of a sync topic.  Raises: Untrusted for any other topic."""
    return _vehicle_of(topic, "sync")


def parse_fetch(topic: str) -> str:
    """Return the vehicle of a fetch topic.  Raises: Untrusted for any other topic."""
    return _vehicle_of(topic, "fetch")


def _vehicle_of(topic: str, purpose: str) -> str:
    match topic.split("/"):
        case ["hu", "v1", found, vehicle] if found == purpose and is_vehicle(vehicle):
            return vehicle
    raise Untrusted(f"The topic {topic[:120]!r} does not have the form {ROOT}/{purpose}/<vehicle>.")
