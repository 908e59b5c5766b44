"""Memory that this process need not hold.  Touches the world: these are settings of the whole process.

The arrays of a window come and go.  Left alone, glibc keeps what they took: each large block that is freed raises the
size from which blocks are given back to the system, up to 32 MB, and each thread has a heap of its own.  So a process
that runs for months holds tens of megabytes that nothing uses.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

Span = tuple[int, int]

_M_MMAP_THRESHOLD: Final = -3  # <malloc.h>
_M_ARENA_MAX: Final = -8
_MADV_DONTNEED: Final = 4  # <sys/mman.h>
_GIVEN_BACK_BYTES: Final = 128 * 1024  # glibc's own default, which stays as it is once it is set


def give_back_freed() -> None:
    """Blocks of 128 KiB and more go back to the system when they are freed, and all threads share one heap.

    Before the first thread is started.  A C library without mallopt (musl gives back by itself) stays as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def give_back_code(before: frozenset[Span]) -> frozenset[Span]:
    """Unmap the files of programs and libraries, where they are read only, until they are used again.

    What only a start or a new connection runs is half of them.  Such pages are the files' own, unmodified: the kernel
    caches them only while nobody needs the memory, and maps them again when they are used.  Returns what may be
    unmapped, for the next call: only what was so `before` is, since a library that is being loaded is read only at
    first, and written then.
    """
    found = frozenset(_unmodified())
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in found & before:
            madvise(start, end - start, _MADV_DONTNEED)
    return found


def _unmodified() -> Iterator[Span]:
    """Mappings of files that this process may not write and has no page of its own in (proc_pid_smaps(5))."""
    start = end = 0
    read_only = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *values = line.split()
        if "-" in key:
            access, _, _, inode = values[:4]
            start, end = (int(address, 16) for address in key.split("-"))
            read_only = "w" not in access and inode != "0"
        elif key == "Anonymous:" and read_only and values[0] == "0":
            yield start, end
