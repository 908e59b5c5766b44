"""Reads the CPU time and memory of running processes from /proc, and raises the limit of open files."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import Permanent

_TICKS: Final = os.sysconf("SC_CLK_TCK")
OTHER_FILES: Final = 200
"""The number of files that a process opens in addition to one connection for each vehicle."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Holds the CPU seconds (user and system, all threads) and the resident bytes of one or more processes."""

    cpu_s: float
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Return the usage of the process `pid` until now.  Raises: Permanent if the process has ended."""
    try:
        # The name in parentheses may contain any character.  utime and stime are the 12th and 13th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError as error:
        raise Permanent(
            f"The process {pid} of the simulation has ended ({error.strerror}). Its log says why."
        ) from error
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, pages * os.sysconf("SC_PAGE_SIZE"))


def total_usage(pids: Sequence[int]) -> Usage:
    """Return the usage of several processes together.  Raises: Permanent if one of them has ended."""
    usages = [usage_of(pid) for pid in pids]
    return Usage(sum(usage.cpu_s for usage in usages), sum(usage.resident_bytes for usage in usages))


def allow_connections(count: int) -> None:
    """Raise the limit of open files, so that this process and its children can each open `count` connections.

    Raises: Permanent if the system does not allow that many.
    """
    needed = count + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Permanent(
            f"{count} vehicles need {needed} open files, but this system allows only {hard}. Raise the limit "
            f"(`ulimit -Hn {needed}`, or LimitNOFILE= in a systemd unit), or simulate fewer vehicles."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
