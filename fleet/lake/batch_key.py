"""Defines the key by which the fleet names a batch.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """Names one batch of one vehicle.  A key is never used again.

    A vehicle has many epochs, in no particular order.  Every new spool begins an epoch.  Every window that a crash left
    open also begins an epoch, in which only the checkpoints of that window are numbered.
    """

    vehicle: str
    epoch: str
    seq: int
