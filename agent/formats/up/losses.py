"""The reasons for which data can be lost.  Pure.

Vehicles write them into loss records, and the lake's ledger reads them.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Every way in which data can be lost; the names travel to the lake."""

    BUS_OVERFLOW = "bus_overflow"  # the kernel or the adapter dropped frames before we read them
    MEMORY_FULL = "memory_full"  # the disk took nothing and the buffer in memory reached its limit
    OPEN_WINDOW = "open_window"  # frames in memory when the process or the power went
    EVICTED_QUOTA = "evicted_quota"
    EVICTED_AGE = "evicted_age"
    EVICTED_RESERVE = "evicted_reserve"  # to leave the file system its free space
    CORRUPT = "corrupt"  # a stored batch was missing or not as written
    INDEX_DAMAGED = "index_damaged"  # the spool's index had to be given up: its unreported losses with it
    REFUSED_BY_RECEIVER = "refused_by_receiver"
