"""Memory that this process need not hold.  Touches the world: these are settings of the whole process.

The arrays of a window come and go.  Left alone, glibc keeps what they took: each large block that is freed raises the
size from which blocks are given back to the system, up to 32 MB, and each thread has a heap of its own.  So a process
that runs for months holds tens of megabytes that nothing uses.
"""

import ctypes
from pathlib import Path
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # <malloc.h>
_M_ARENA_MAX: Final = -8
_MADV_DONTNEED: Final = 4  # <sys/mman.h>
_CODE: Final = "r-xp"
_GIVEN_BACK_BYTES: Final = 128 * 1024  # glibc's own default, which stays as it is once it is set


def give_back_freed() -> None:
    """Blocks of 128 KiB and more go back to the system when they are freed, and all threads share one heap.

    Before the first thread is started.  A C library without mallopt (musl gives back by itself) stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def give_back_code() -> None:
    """Unmap the code of libraries until it runs again: after a start, of which a third is never needed again.

    Such pages are the file's, unmodified: they stay in the kernel's cache of files only while nobody needs the memory.
    What runs comes back from there, by the page.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None:
        return
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *_ = line.split()
        if access == _CODE and inode != "0":
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(start, end - start, _MADV_DONTNEED)
