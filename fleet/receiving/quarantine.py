"""Keeps rejected batches, still sealed and each with its reason, so that an operator can find the cause.

Invariant: the folder keeps at most QUOTA_FILES batches.  The oldest batch is deleted first, and each deletion is
logged.  A batch is named by the hash of its content, so a batch that comes again and again is kept only once.
"""

import hashlib
import json
from pathlib import Path

import structlog

from agent.errors import Transient
from agent.system.durable import remove, write_file

QUOTA_FILES = 1_000
"""The limit of batches.  An envelope has at most 512 KB, in practice less than 60 KB."""

_log = structlog.get_logger()


class Quarantine:
    """Manages the quarantine in `folder`.  Only one process may write it at a time."""

    def __init__(self, folder: Path, *, quota_files: int = QUOTA_FILES) -> None:
        self._folder = folder
        self._quota_files = quota_files
        found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        # The oldest names come first, because a dict keeps the order in which names are added.
        self._names = dict.fromkeys(path.stem for path in found)

    def keep(self, payload: bytes, *, topic: str, reason: str, received_at_us: int) -> None:
        """Store `payload` durably, with its topic and the reason of the rejection.

        Raises: Transient if the disk refuses.
        """
        name = hashlib.sha256(payload).hexdigest()[:32]
        if name in self._names:
            return
        note = {"reason": reason, "topic": topic, "received_at_us": received_at_us, "bytes": len(payload)}
        try:
            # The note is written last, because the start-up finds kept batches by their notes.
            write_file(self._folder / f"{name}.sealed", payload)
            write_file(self._folder / f"{name}.json", json.dumps(note, indent=2).encode())
            self._names[name] = None
            while len(self._names) > self._quota_files:
                self._drop(next(iter(self._names)))
        except OSError as error:
            raise Transient(
                f"The quarantine {self._folder} cannot be written ({error.strerror}). "
                "Check the space and the permissions of the folder."
            ) from error

    def _drop(self, name: str) -> None:
        # The note is deleted first, so that a crash in between leaves no note without its batch.
        for suffix in ("json", "sealed"):
            remove(self._folder / f"{name}.{suffix}")
        del self._names[name]
        _log.warning("quarantine_full", dropped=name, quota_files=self._quota_files)
