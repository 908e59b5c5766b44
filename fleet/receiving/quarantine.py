"""Keep batches that the receiver refused, still sealed and with the reason, for the person who finds out why.

Invariant: the folder stays within QUOTA_FILES.  The oldest batches make room, and each is logged as it goes.  A batch
is named by its content, so a batch that comes again and again is kept once.
"""

import hashlib
import json
from pathlib import Path

import structlog

from agent.errors import Transient
from agent.system.durable import remove, write_file

QUOTA_FILES = 1_000
"""Batches that are kept.  Each has at most 512 KB (the limit of an envelope), in practice below 60 KB."""

_log = structlog.get_logger()


class Quarantine:
    """The quarantine in `folder`.  One process writes it at a time."""

    def __init__(self, folder: Path, *, quota_files: int = QUOTA_FILES) -> None:
        self._folder = folder
        self._quota_files = quota_files
        found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        # Oldest first: a dict keeps the order in which names are added.
        self._names = dict.fromkeys(path.stem for path in found)

    def keep(self, payload: bytes, *, topic: str, reason: str, received_at_us: int) -> None:
        """Keep `payload` durably, with the reason.  Raises: Transient where the disk refuses."""
        name = hashlib.sha256(payload).hexdigest()[:32]
        if name in self._names:
            return
        note = {"reason": reason, "topic": topic, "received_at_us": received_at_us, "bytes": len(payload)}
        try:
            # The note comes last: at start-up a batch counts as kept where its note is found.
            write_file(self._folder / f"{name}.sealed", payload)
            write_file(self._folder / f"{name}.json", json.dumps(note, indent=2).encode())
            self._names[name] = None
            while len(self._names) > self._quota_files:
                self._drop(next(iter(self._names)))
        except OSError as error:
            raise Transient(f"cannot write to the quarantine {self._folder}: {error.strerror}") from error

    def _drop(self, name: str) -> None:
        # The note goes first, so that a crash in between leaves no note without its batch.
        for suffix in ("json", "sealed"):
            remove(self._folder / f"{name}.{suffix}")
        del self._names[name]
        _log.warning("quarantine_full", dropped=name, quota_files=self._quota_files)
