"""Keeps other processes away from a spool by a locked file.

The kernel drops the lock when the process ends, however it ends, so no lock is left behind by a crash.
"""

import fcntl
import os
from pathlib import Path

from agent.errors import Permanent


class FolderLock:
    """The lock on the folder of one spool."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor = -1

    @property
    def is_held(self) -> bool:
        """Return whether this object holds the lock."""
        return self._descriptor >= 0

    def take(self) -> None:
        """Take the lock, unless this object holds it already.

        Raises: Permanent if another process holds the lock.  OSError if the file cannot be opened.
        """
        if self.is_held:
            return
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)  # otherwise the next call would believe that the lock is held
            if isinstance(error, BlockingIOError):
                raise Permanent(f"The spool {self._root} is in use by another process. Stop that process.") from error
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process take the lock."""
        if self.is_held:
            os.close(self._descriptor)
            self._descriptor = -1
