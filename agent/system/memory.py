"""Reduce the memory and the garbage collection of the whole process.

The arrays of a window come and go, but by default glibc keeps their memory.  Each large block that is freed raises the
size from which blocks are returned to the system (mallopt(3), M_MMAP_THRESHOLD), up to 32 MB.  Each thread also
allocates from an arena of its own.  A process that runs for months then holds tens of megabytes that it does not use.
"""

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # <malloc.h>
_M_ARENA_MAX: Final = -8  # <malloc.h>
_RETURNED_BYTES: Final = 128 * 1024
"""Freed blocks of this size and more return to the system.  Setting glibc's own default keeps glibc from raising it."""


def return_freed_memory() -> None:
    """Make the C library return freed blocks of 128 KiB and more to the system, and use one arena for all threads.

    Call this function before any thread starts, because a thread keeps an arena that it already has.
    """
    # musl has no mallopt, and returns freed memory anyway.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def freeze_lasting_objects() -> None:
    """Exclude all present objects from garbage collection.  Call this function when all lasting objects are built."""
    # Each full collection would otherwise walk through every plan and module, for nothing.
    gc.collect()
    gc.freeze()
