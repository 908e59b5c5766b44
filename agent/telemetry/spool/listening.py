"""Keeps a note of which rings capture already, although no run has begun in the spool yet.

An agent opens its rings at its very start, seconds before it has opened the spool.  If the power is cut in between, the
frames in these rings are lost, and only this note says so.  It is a file in the spool's folder, because opening the
spool's index takes more imports and more time.  `Spool.begin_run` reads the note, and removes it.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from agent.system.durable import Disk

_FILE: Final = "listening.json"


class Listening(msgspec.Struct, frozen=True):
    """Says that the ring `held_in` has captured `bus` since `since_us` (wall clock, us since the Unix epoch).

    If `held_in` is "", several rings captured the bus one after the other, and the first of them no longer exists.
    """

    bus: str
    held_in: str
    since_us: int


class ListeningNote:
    """The note in the folder `spool` on `disk`.  Methods raise OSError."""

    def __init__(self, spool: Path, disk: Disk) -> None:
        self._file = spool / _FILE
        self._disk = disk

    def read(self) -> tuple[Listening, ...]:
        """Return what is noted, at most one ring for each bus."""
        try:
            return msgspec.json.decode(self._disk.read(self._file), type=tuple[Listening, ...])
        except (FileNotFoundError, msgspec.DecodeError):  # no cut leaves such a content, and guesses would not help
            return ()

    def add(self, rings: Iterable[Listening]) -> None:
        """Note `rings` durably, in addition to what is noted."""
        before = self.read()
        noted = {each.bus: each for each in before}
        for ring in rings:
            earlier = noted.get(ring.bus, ring)
            same = earlier.held_in == ring.held_in
            noted[ring.bus] = Listening(ring.bus, ring.held_in if same else "", min(earlier.since_us, ring.since_us))
        if tuple(noted.values()) == before:
            return
        self._disk.make_folders(self._file.parent)
        temporary = self._file.with_suffix(".tmp")
        self._disk.write_synced(temporary, msgspec.json.encode(tuple(noted.values())), 0o600)
        self._disk.rename(temporary, self._file)
        self._disk.sync_folder(self._file.parent)

    def remove(self) -> None:
        """Remove the note durably, if there is one.  Raises nothing."""
        # If the note stays, a later run names an interval in which nothing was lost.  That is no reason to fail.
        with contextlib.suppress(OSError):
            if _FILE in self._disk.sizes(self._file.parent):
                self._disk.remove(self._file)
                self._disk.sync_folder(self._file.parent)
