"""The key of a batch.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """Name a batch for ever, across vehicles.

    A vehicle has many epochs, and they come in no order: one for each life of its spool, and one for each window that a
    crash left open, whose checkpoints are numbered in an epoch of their own.
    """

    vehicle: str
    epoch: str
    seq: int
