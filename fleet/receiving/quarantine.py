"""Keeps rejected batches, still sealed and each with its reason, so that an operator can find the cause.

Invariant: the folder keeps at most QUOTA_FILES batches, and each deletion is logged.  The oldest batch of the vehicle
with the most batches is deleted first, so a vehicle that sends rubbish never displaces the batches of others.  A batch
is named by the hash of its content, so a batch that comes again and again is kept only once.
"""

import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Final

import structlog

from agent.errors import Transient
from agent.system.durable import remove, write_file
from fleet.receiving.allowance import Allowance
from fleet.receiving.message import Message

QUOTA_FILES: Final = 1_000
"""The limit of batches.  An envelope has at most 512 KB, in practice less than 60 KB."""

MOST: Final = 50
PER_S: Final = 0.1
"""How many batches of one vehicle are kept at once, and how many a second in the long run.

Each takes some 10 ms of a disk that has to sync.
"""

_log = structlog.get_logger()


class Quarantine:
    """Manages the quarantine in `folder`.  Only one process may write to it at a time."""

    def __init__(self, folder: Path, *, quota_files: int = QUOTA_FILES) -> None:
        self._folder = folder
        self._quota_files = quota_files
        self._allowance = Allowance(MOST, PER_S)
        found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        # The vehicle of each batch by its name.  The oldest names come first, because a dict keeps their order.
        self._vehicles = {path.stem: _vehicle_of(path) for path in found}

    def keep(self, message: Message, *, reason: str, received_at_us: int) -> bool:
        """Store the rejected batch of `message` durably, with its topic and the reason of the rejection.

        Return whether the batch is kept.  It is not kept if its vehicle has sent too many of them lately.

        Raises: Transient if the disk refuses.
        """
        name = hashlib.sha256(message.payload).hexdigest()[:32]
        if name in self._vehicles:
            return True
        if not self._allowance.take(message.vehicle, time.monotonic()):
            return False
        note = {
            "reason": reason,
            "topic": message.topic,
            "received_at_us": received_at_us,
            "bytes": len(message.payload),
        }
        try:
            # The note is written last, because the start-up finds kept batches by their notes.
            write_file(self._folder / f"{name}.sealed", message.payload)
            write_file(self._folder / f"{name}.json", json.dumps(note, indent=2).encode())
            self._vehicles[name] = message.vehicle
            while len(self._vehicles) > self._quota_files:
                self._drop(self._next_to_drop())
        except OSError as error:
            raise Transient(
                f"The quarantine {self._folder} cannot be written ({error.strerror}). "
                "Check the space and the permissions of the folder."
            ) from error
        return True

    def _next_to_drop(self) -> str:
        """Return the oldest batch of the vehicle that has the most batches."""
        ((most, _),) = Counter(self._vehicles.values()).most_common(1)
        return next(name for name, vehicle in self._vehicles.items() if vehicle == most)

    def _drop(self, name: str) -> None:
        # The note is deleted first, so that a crash in between leaves no note without its batch.
        for suffix in ("json", "sealed"):
            remove(self._folder / f"{name}.{suffix}")
        del self._vehicles[name]
        _log.warning("quarantine_full", dropped=name, quota_files=self._quota_files)


def _vehicle_of(note: Path) -> str:
    """Return the vehicle that sent the batch with this note, or an empty string if the note is damaged."""
    try:
        return Message(json.loads(note.read_bytes())["topic"], b"").vehicle
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
