"""Locks shares of the partitions, so that only one process serves a share at a time.

The kernel releases a lock when its process ends, even after a crash.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import Permanent


def lock_share(inbox: Path, share: str) -> int:
    """Lock `share`, and return a descriptor that holds the lock.  Closing the descriptor releases the lock.

    If another receiver completes abandoned commits of the share, wait until that receiver has finished.

    Raises: Permanent if another receiver serves the share.
    """
    try:
        return try_lock_share(inbox, share)
    except Permanent:
        # Another receiver may hold the lock only for a moment, to complete abandoned commits of this share.  Wait until
        # it has finished, and try once more.
        with adopting(inbox):
            return try_lock_share(inbox, share)


def try_lock_share(inbox: Path, share: str) -> int:
    """Lock `share` as `lock_share` does, but never wait.

    Raises: Permanent if another process holds the lock, even if only for a moment.
    """
    path = inbox.with_name(f"{inbox.stem}-{share}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Permanent(
            f"This receiver cannot start, because another receiver serves partitions {share} and has locked {path}. "
            "Stop the other receiver, or give each receiver its own --partitions."
        ) from error
    return lock


@contextlib.contextmanager
def adopting(inbox: Path) -> Iterator[None]:
    """Hold a lock for a `with` block, so that only one process at a time completes commits of other shares.

    Before the block, wait until no other process holds this lock.
    """
    lock = os.open(inbox.with_name(f"{inbox.stem}-adopting.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
