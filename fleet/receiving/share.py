"""Which partitions of the fleet one receiver serves.  Pure.

A vehicle's partition never changes, so receivers that split the partitions among them never share a vehicle.
"""

import re
from dataclasses import dataclass

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS, partition_of, up_filter


@dataclass(frozen=True, slots=True)
class Share:
    """The partitions from `first` to `last`, both included."""

    first: int = 0
    last: int = PARTITIONS - 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def has(self, vehicle: str) -> bool:
        """Tell whether `vehicle` belongs to this share."""
        return self.first <= partition_of(vehicle) <= self.last

    def filters(self) -> list[str]:
        """Return the MQTT subscriptions to the batches of this share."""
        return [up_filter(partition) for partition in range(self.first, self.last + 1)]


def parse_share(text: str) -> Share:
    """Read `0-3/16` or `5/16`.  Raises: Permanent for any other text."""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?/(\d{1,4})", text)
    if match is None:
        raise Permanent(f"partitions {text!r}: write FIRST-LAST/{PARTITIONS}, for example 0-3/{PARTITIONS}")
    first, last, count = int(match[1]), int(match[2] or match[1]), int(match[3])
    if count != PARTITIONS:
        raise Permanent(f"partitions {text!r}: this fleet has {PARTITIONS} partitions, not {count}")
    if not first <= last < PARTITIONS:
        raise Permanent(f"partitions {text!r}: FIRST to LAST must lie within 0-{PARTITIONS - 1}")
    return Share(first, last)
