"""Locks that let one process serve a share of the partitions at a time.

A lock is held by the process, so the kernel releases it whatever way the process ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import Permanent


def lock_share(inbox: Path, share: str) -> int:
    """Return a descriptor that holds the lock of `share`; closing it releases the lock.

    Raises: Permanent where another receiver serves the share.
    """
    try:
        return try_lock_share(inbox, share)
    except Permanent:
        # The holder may be a receiver that just now adopts commits of this share.  Adopting ends, so wait for it.
        with adopting(inbox):
            return try_lock_share(inbox, share)


def try_lock_share(inbox: Path, share: str) -> int:
    """Do as `lock_share` does, but wait for nobody who adopts."""
    path = inbox.with_name(f"{inbox.stem}-{share}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Permanent(
            f"another receiver serves partitions {share} ({path} is locked); stop it, or give each receiver its own "
            "--partitions"
        ) from error
    return lock


@contextlib.contextmanager
def adopting(inbox: Path) -> Iterator[None]:
    """Hold the lock under which one process at a time adopts commits of other shares."""
    lock = os.open(inbox.with_name(f"{inbox.stem}-adopting.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
