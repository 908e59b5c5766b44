"""What running processes have used (/proc/PID/stat and statm), and how many files a process may open."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import Permanent

_TICKS: Final = os.sysconf("SC_CLK_TCK")
OTHER_FILES: Final = 200
"""Files that a process opens besides one connection for each vehicle."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system, all threads) and resident bytes."""

    cpu_s: float
    resident_bytes: int


def usage_of(pid: int) -> Usage:
    """Return what process `pid` has used until now.  Raises: Permanent where the process has ended."""
    try:
        # The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError as error:
        raise Permanent(f"process {pid} is gone: {error.strerror}; its log says why") from error
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, pages * os.sysconf("SC_PAGE_SIZE"))


def total_usage(pids: Sequence[int]) -> Usage:
    """Return what several processes have used together.  Raises: Permanent where one has ended."""
    usages = [usage_of(pid) for pid in pids]
    return Usage(sum(usage.cpu_s for usage in usages), sum(usage.resident_bytes for usage in usages))


def allow_connections(count: int) -> None:
    """Let this process and its children open `count` connections each.  Raises: Permanent where that is too many."""
    needed = count + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Permanent(
            f"{count} vehicles need {needed} open files, but this system allows {hard}; raise the limit "
            f"(`ulimit -Hn {needed}`, LimitNOFILE=) or simulate fewer vehicles"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
