"""Says in words that the spool evicts batches, or that the disk has less free space than `spool.reserve_mb` leaves.

This file is pure.
"""

from collections.abc import Mapping
from typing import Final

from agent.formats.up.losses import Reason

RESERVE: Final = "reserve"
"""Names the shortage that free space is below the reserve; an eviction is named by its Reason."""

Shortages = Mapping[str, str]
"""The present shortages by name, each with a text that says what to do."""

_LIMIT: Final = {
    Reason.EVICTED_QUOTA: "the batches that wait would exceed spool.quota_mb. Bring the vehicle online, or raise "
    "spool.quota_mb.",
    Reason.EVICTED_RESERVE: "the disk has less free space than spool.reserve_mb leaves to other programs. Free some "
    "space, or lower spool.reserve_mb.",
    Reason.EVICTED_AGE: "they are older than spool.max_age_s. Bring the vehicle online, or raise spool.max_age_s.",
}


def below_reserve(folder: object, free_bytes: int, reserve_bytes: int) -> str:
    """Return the text for a disk that has only `free_bytes` free."""
    return (
        f"{folder}: {free_bytes:,} bytes are free, but spool.reserve_mb leaves {reserve_bytes:,} bytes to other "
        "programs, so no batch can be stored. New batches stay in memory and are sent from there while the link is up; "
        "the others are lost when memory is full or the agent ends. Free some space, or lower spool.reserve_mb."
    )


def evicting(reason: Reason) -> str:
    """Return the text for batches that are evicted because of `reason`."""
    return f"Unacknowledged batches are evicted and recorded as lost, because {_LIMIT[reason]}"
