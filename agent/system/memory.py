"""Memory that this process need not hold, or look through.  Touches the world: these are settings of the whole process.

The arrays of a window come and go.  Left alone, glibc keeps what they took: each large block that is freed raises the
size from which blocks are given back to the system, up to 32 MB, and each thread has a heap of its own.  So a process
that runs for months holds tens of megabytes that nothing uses.
"""

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # <malloc.h>
_M_ARENA_MAX: Final = -8
_GIVEN_BACK_BYTES: Final = 128 * 1024  # glibc's own default, which stays as it is once it is set


def give_back_freed() -> None:
    """Blocks of 128 KiB and more go back to the system when they are freed, and all threads share one heap.

    Before the first thread is started.  A C library without mallopt (musl gives back by itself) stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def keep_what_is_there() -> None:
    """Once all is built: what exists now lives as long as the process, so the search for garbage passes over it."""
    gc.collect()
    gc.freeze()
