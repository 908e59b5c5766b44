"""Describes the share of the fleet's partitions that one receiver serves.  Pure.

A vehicle's partition never changes.  If receivers serve different partitions, they therefore never serve the same
vehicle.
"""

import re
from dataclasses import dataclass
from typing import Self

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS, partition_of, up_filter


@dataclass(frozen=True, slots=True)
class Share:
    """Holds the range of partitions from `first` to `last`, both included."""

    first: int = 0
    last: int = PARTITIONS - 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Return the share whose text is `name`, for example 0-3."""
        first, last = name.split("-")
        return cls(int(first), int(last))

    @property
    def partitions(self) -> range:
        """Return the partitions of this share."""
        return range(self.first, self.last + 1)

    def has(self, vehicle: str) -> bool:
        """Return whether `vehicle` belongs to this share."""
        return self.first <= partition_of(vehicle) <= self.last

    def filters(self) -> list[str]:
        """Return the MQTT topic filters for the batches of this share."""
        return [up_filter(partition) for partition in self.partitions]


def parse_share(text: str) -> Share:
    """Read a share such as `0-3/16` or `5/16`.  Raises: Permanent for any other text."""
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?/(\d{1,4})", text)
    if match is None:
        raise Permanent(
            f"{text!r} is not a share of the partitions; write FIRST-LAST/{PARTITIONS}, for example 0-3/{PARTITIONS}"
        )
    first, last, count = int(match[1]), int(match[2] or match[1]), int(match[3])
    if count != PARTITIONS:
        raise Permanent(
            f"{text!r} names {count} partitions, but this fleet has {PARTITIONS}; write FIRST-LAST/{PARTITIONS}"
        )
    if not first <= last < PARTITIONS:
        raise Permanent(
            f"{text!r} is not a range of partitions; choose FIRST and LAST in rising order from 0 to {PARTITIONS - 1}"
        )
    return Share(first, last)
