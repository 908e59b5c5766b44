"""Defines the key by which the fleet names a batch.  Pure."""

from dataclasses import dataclass

from agent.formats.up.acks import Sealed


@dataclass(frozen=True, slots=True, order=True)
class BatchKey:
    """Names one sealed batch of one vehicle.  A key is never used again.

    A vehicle has many epochs, in no particular order.  Each spool has an epoch, in which its ordinary batches are
    numbered.  Each window has another epoch, in which its checkpoints are numbered.  The fleet receives checkpoints
    only if a crash left their window open.

    `digest` is the digest of the envelope.  A number can name several batches: a disk that is put back to an earlier
    state uses numbers again, and head units with copies of one disk use the same numbers.  Such an epoch is *forked*.
    """

    vehicle: str
    epoch: str
    seq: int
    digest: bytes

    @property
    def sealed(self) -> Sealed:
        """Return the name of the batch within its epoch."""
        return Sealed(self.seq, self.digest)
