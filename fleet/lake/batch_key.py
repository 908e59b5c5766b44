"""Defines the key by which the fleet names a batch.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """Names one batch of one vehicle.  A key is never used again.

    A vehicle has many epochs, in no particular order.  Each spool has an epoch, in which its ordinary batches are
    numbered.  Each window has another epoch, in which its checkpoints are numbered.  The fleet receives checkpoints
    only if a crash left their window open.
    """

    vehicle: str
    epoch: str
    seq: int
