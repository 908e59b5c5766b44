"""Settings of the whole process about memory: what was freed goes back, and what lasts is not searched for garbage.

The arrays of a window come and go.  By default glibc keeps their memory: each large block that is freed raises the size
from which blocks are returned to the system (mallopt(3), M_MMAP_THRESHOLD), up to 32 MB, and each thread allocates from
an arena of its own.  A process that runs for months then holds tens of megabytes that it does not use.
"""

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # <malloc.h>
_M_ARENA_MAX: Final = -8  # <malloc.h>
_RETURNED_BYTES: Final = 128 * 1024
"""The default of glibc; setting it at all is what keeps glibc from raising it."""


def return_freed_memory() -> None:
    """Make the C library return freed blocks of 128 KiB and more to the system, and use one arena for all threads.

    The caller calls this before it starts threads: an arena that a thread has already is not taken away.
    """
    # musl has no mallopt, and returns freed memory anyway.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def freeze_lasting_objects() -> None:
    """Exclude all objects of this moment from garbage collection; the caller has just built what lasts."""
    # Each full collection would otherwise walk through every plan and module, for nothing.
    gc.collect()
    gc.freeze()
