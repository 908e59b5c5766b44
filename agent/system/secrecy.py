"""Keep the memory of this process, which holds the device key, from other programs and from the disk.

| way out | what closes it |
|---|---|
| core dumps, also after the SIGABRT of systemd's watchdog | `forbid_dumps`, and LimitCORE=0 of the unit |
| ptrace, /proc/PID/mem and /proc/PID/environ of a program of the same user | `forbid_dumps` |
| swap | MemorySwapMax=0 of the unit, which needs cgroup v2 (Debian 12 has it) |

A program with CAP_SYS_PTRACE still reads any memory, and one with CAP_PERFMON reads environments and maps.
"""

import resource
from typing import Final

from agent.system.libc import prctl

_PR_SET_DUMPABLE: Final = 4  # <linux/prctl.h>


def forbid_dumps() -> None:
    """Forbid core dumps of this process, and forbid other programs to trace it or to read its memory.

    A program that this process starts must call this function itself, because execve(2) makes it dumpable again.  Its
    cores stay forbidden if they are files.  Raises: OSError if the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The kernel ignores the limit if it passes cores to a program such as systemd-coredump (core(5)).
    prctl(_PR_SET_DUMPABLE, 0, to="forbid core dumps of this process")
