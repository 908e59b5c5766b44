"""Keeps a note in the runtime folder while an agent starts, so that `status` can tell such an agent from a dead one.

A starting agent compiles databases, opens the spool, and may wait for a disk that refuses.  It answers no request yet.
The note is removed when the agent answers.  The process that writes the note holds a lock (flock) on it, so a note
that a killed process has left is not believed.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = "starting.json"


class Start(msgspec.Struct, frozen=True):
    """Says that the process `pid` has been starting since `since_s` (wall clock); `problem` is what it waits for."""

    pid: int
    since_s: float
    problem: str | None = None


class StartNote:
    """The note of this process in `folder`.  Methods raise nothing, because an agent starts without a note, too."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._since_s = time.time()
        self._fd = -1

    def write(self, problem: str | None = None) -> None:
        """Write or replace the note."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                # Every user may read the note, like the status of a running agent, whatever the umask.
                os.fchmod(self._fd, 0o644)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, msgspec.json.encode(Start(os.getpid(), self._since_s, problem)), 0)

    def remove(self) -> None:
        """Remove the note, because the agent answers requests or has ended."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def read_start(folder: Path) -> Start | None:
    """Return the note in `folder` if its process still runs, else None."""
    try:
        fd = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(os.pread(fd, 65_536, 0), type=Start)
    finally:
        os.close(fd)
    return None
