"""Puts disks back between two chapters, and checks what the receiver says about it when it starts again."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.images import Images
from tests.faults.restored import PutBack, digests, numbers
from tests.faults.schedule import Restored
from tests.faults.world import FaultyWorld


class History:
    """Keeps which disks were put back, in `done`, and what the receiver did not say about them, in `unsaid`."""

    def __init__(self, faulty: FaultyWorld) -> None:
        self._faulty = faulty
        self._lines = {"inbox_is_older": 0, "lake_is_older": 0}
        self._missing = 0
        self.done: list[PutBack] = []
        self.unsaid: list[str] = []

    def put_back(self, restored: Restored, images: Images) -> None:
        """Put back the images of `restored`.  All programs but the broker must be down."""
        lake = self._faulty.world.fleet.lake
        self._lines = {event: len(self._said(event)) for event in self._lines}
        replaced: list[Path] = [each.replaced for each in self.done if each.replaced is not None]
        known = digests([lake, *replaced], self._faulty.vehicle)
        before = numbers(lake)
        put_back = PutBack(restored, round(time.time() * 1e6), known, images.put_back(restored))
        self._missing = len(before - numbers(lake))
        self._faulty.unsettled = restored in {Restored.VEHICLE, Restored.VEHICLE_AND_INBOX}
        self.done.append(put_back)

    def check_said(self) -> None:
        """Check that the receiver, which has just started, has said what the last restored disk did to it."""
        if not self.done:
            return
        restored = self.done[-1].restored
        new = {event: self._said(event)[count:] for event, count in self._lines.items()}
        if restored in {Restored.INBOX, Restored.VEHICLE_AND_INBOX} and len(new["inbox_is_older"]) != 1:
            self.unsaid.append(f"The inbox was put back, and the receiver said so {len(new['inbox_is_older'])} times.")
        if restored is Restored.LAKE:
            missing = [line["missing"] for line in new["lake_is_older"]]
            if missing != [self._missing]:
                self.unsaid.append(f"The restored lake lacks {self._missing} numbers, and the receiver said {missing}.")

    def _said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the receiver's log that have this event.  A killed receiver leaves half a line."""
        found = []
        for line in self._faulty.world.receiver.output().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if line.get("event") == event]
