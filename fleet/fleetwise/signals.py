"""What is known of signals by their fully qualified names: where they come from, their types and units.  Pure."""

import re
from collections.abc import Mapping
from enum import Enum
from fnmatch import translate
from typing import Final

import msgspec


class Source(Enum):
    """Where the values of a signal come from."""

    CAN = "CAN_SIGNAL"
    OBD = "OBD_SIGNAL"
    MESSAGE = "MESSAGE_SIGNAL"
    CUSTOM = "CUSTOM_DECODING_SIGNAL"
    REFUSED = "refused"
    NOWHERE = "nowhere"


WHY_NOT: Final[Mapping[Source, str]] = {
    Source.OBD: "it comes from diagnostic requests (OBD), which this version does not send",
    Source.MESSAGE: "it comes from messages of ROS 2, which this version does not read",
    Source.CUSTOM: "it comes from a custom decoder in the edge agent, which has no counterpart here",
    Source.REFUSED: "its CAN decoder is refused",
    Source.NOWHERE: "the decoder manifest has no decoder for it",
}
"""Why a signal of each source but CAN is not collected."""


class Known(msgspec.Struct, frozen=True):
    """The signals of all decoder manifests together.

    `mapped` are those whose name leads to a signal of a database only by a mapping, and `mappings_are_read` says
    whether vehicles read mappings.
    """

    sources: Mapping[str, Source]
    mapped: frozenset[str]
    mappings_are_read: bool

    def obstacle(self, name: str) -> str | None:
        """Return why the signal `name` is not collected, or None if it is."""
        source = self.sources.get(name, Source.NOWHERE)
        if source is not Source.CAN:
            return WHY_NOT[source]
        if name in self.mapped and not self.mappings_are_read:
            return "it needs its mapping, which this version does not read"
        return None

    def by_glob(self, pattern: str) -> tuple[list[str], list[str]]:
        """Return the CAN signals that the glob finds in a vehicle, and those that it misses.

        Vehicles compare globs with the names of databases only (`agent.telemetry.collect.names`), so a glob misses a
        signal that has its name from a mapping.
        """
        match = re.compile(translate(pattern)).match
        matched = [name for name, source in self.sources.items() if source is Source.CAN and match(name)]
        return [name for name in matched if name not in self.mapped], [name for name in matched if name in self.mapped]


class Catalogue(msgspec.Struct):
    """The types and units of the signals of all signal catalogues together, by fully qualified name."""

    datatypes: dict[str, str] = msgspec.field(default_factory=dict)
    units: dict[str, str] = msgspec.field(default_factory=dict)
