"""What the receiver refused, kept sealed with the reason, for whoever has to find out why.

The invariant: the folder stays within QUOTA_FILES.  The oldest make room, and each is logged as it goes.  A
batch is named by its content, so one that comes again and again is kept once.
"""

import hashlib
import json
from pathlib import Path

import structlog

from agent.errors import Transient
from agent.system.durable import remove, write_file

QUOTA_FILES = 1_000
"""Batches kept; at most 512 KB each (the envelope's limit), in practice under 60 KB."""

_log = structlog.get_logger()


class Quarantine:
    """The folder `folder`.  Only one process writes it."""

    def __init__(self, folder: Path, *, quota_files: int = QUOTA_FILES) -> None:
        self._folder = folder
        self._quota_files = quota_files
        found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        self._names = dict.fromkeys(path.stem for path in found)  # oldest first

    def keep(self, payload: bytes, *, topic: str, reason: str, received_at_us: int) -> None:
        """Keep `payload` and why it was refused, durably.  Transient where the disk refuses."""
        name = hashlib.sha256(payload).hexdigest()[:32]
        if name in self._names:
            return
        note = {"reason": reason, "topic": topic, "received_at_us": received_at_us, "bytes": len(payload)}
        try:
            write_file(self._folder / f"{name}.sealed", payload)
            write_file(self._folder / f"{name}.json", json.dumps(note, indent=2).encode())
            self._names[name] = None
            while len(self._names) > self._quota_files:
                self._drop(next(iter(self._names)))
        except OSError as error:
            raise Transient(f"cannot write to the quarantine {self._folder}: {error.strerror}") from error

    def _drop(self, name: str) -> None:
        for suffix in ("json", "sealed"):
            remove(self._folder / f"{name}.{suffix}")
        del self._names[name]
        _log.warning("quarantine_full", dropped=name, quota_files=self._quota_files)
