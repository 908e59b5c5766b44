"""The reasons why data can be lost.  Pure.

Vehicles write the reasons into loss records, and the ledger of the lake reads them.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Every reason why data can be lost; the values are part of the format."""

    BUS_OVERFLOW = "bus_overflow"  # the kernel or the adapter dropped frames before the agent read them
    TOO_MANY_SENDERS = "too_many_senders"  # more J1939 senders were on the bus than a campaign collects from
    MEMORY_FULL = "memory_full"  # the disk accepted nothing, and the buffer in memory reached its limit
    OPEN_WINDOW = "open_window"  # frames were only in memory when the process or the power failed
    EVICTED_QUOTA = "evicted_quota"
    EVICTED_AGE = "evicted_age"
    EVICTED_RESERVE = "evicted_reserve"  # a batch was evicted to keep space free on the file system
    CORRUPT = "corrupt"  # the file of a stored batch was missing or had changed
    INDEX_DAMAGED = "index_damaged"  # the damaged index of the spool was discarded, with its unreported losses
    REFUSED_BY_RECEIVER = "refused_by_receiver"
