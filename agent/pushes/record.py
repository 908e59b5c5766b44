"""Defines what the push store remembers over a power cut.  Pure."""

from datetime import datetime

import msgspec

from agent.formats.down.bundle import Versions
from agent.formats.down.chunks import LargeFile
from agent.pushes.freshness import expiry_of
from agent.pushes.readings import Baseline
from agent.pushes.receipts import PushOutcome
from agent.pushes.trial import Slots


class Record(msgspec.Struct, frozen=True):
    """Holds everything that must survive a power cut.

    `generation` is the running number of the record.  `floor` has the highest version seen of each role.  `time_s` is a
    Unix time that has certainly passed, because the fleet signed it.  `metadata` is the trusted TUF metadata by file
    name.  `slots` name the releases that are kept.  `wanted` are the large documents of the newest trusted release,
    while this release waits for the chunks that are missing.  `before` is the state of the agent before the trial.
    `receipts` are outcomes whose receipts are not known to be stored.
    """

    generation: int = 0
    floor: Versions = Versions()
    time_s: int = 0
    metadata: dict[str, bytes] = {}
    slots: Slots = Slots()
    before: Baseline | None = None
    receipts: tuple[PushOutcome, ...] = ()
    wanted: tuple[LargeFile, ...] = ()

    @property
    def expires(self) -> datetime | None:
        """Return when the fleet's newest signature expires, or None if the vehicle has none."""
        return expiry_of(self.metadata)
