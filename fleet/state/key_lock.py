"""Lets commands that change keys, certificates or revocation lists take turns."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from fleet.state.folder import FleetFolder


@contextmanager
def key_lock(fleet: FleetFolder) -> Iterator[None]:
    """Wait until no other such command runs, and keep others out for a `with` block.

    Two commands at once would read the same list and write it one after the other, and one revocation would be lost.
    The kernel releases the lock when the process ends, even after a crash.  A block must not contain another one.
    """
    with (fleet.require().root / ".keys.lock").open("a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
