"""A sealed batch on its way into the spool, a row of the spool's index, and the record of a batch's loss.  Pure.

Invariant: a row says enough to tell the fleet of its batch's loss.

Identity.  A batch is named by its batch id: epoch and sequence number.  Ordinary batches count in the epoch of the
spool. A checkpoint counts in an epoch of its own window, the *window id*: checkpoint k of a window has the id (window
id, k).  A checkpoint is dropped when its window is stored, and then no number of the spool's epoch is missing.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.names import BatchName, checksum_of
from agent.telemetry.spool.retention import Held

MAX_PRIORITY: Final = 2**31 - 1
UNKNOWN: Final = b""  # the catalogue of a batch that was taken in without an index


class BatchId(NamedTuple):
    """The name of a batch for ever."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """The place of a batch in its window: fragment `number` of `count`, both from 1."""

    window: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch that is to be stored.

    `priority` is the campaign's; a smaller number is more important.  `carries` and `refers` are digests: of the
    catalogue in the batch, and of the catalogue that it needs.  `fragment` is None for events and for checkpoints.
    `reports` are the ids of the loss records that the batch tells of.  A checkpoint has `waits` set, and its epoch is
    the id of its window.
    """

    id: BatchId
    lane: Lane
    priority: int
    content: bytes = field(repr=False)
    campaign: str = ""
    samples: int = 0
    first_t_us: int | None = None
    last_t_us: int | None = None
    carries: bytes | None = None
    refers: bytes | None = None
    fragment: Fragment | None = None
    reports: tuple[int, ...] = ()
    waits: bool = False

    def __post_init__(self) -> None:
        assert 0 <= self.priority <= MAX_PRIORITY
        assert self.lane is Lane.LIVE or not self.waits


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored batch.

    `row` ascends with arrival in this spool.  `refers` is the digest of the catalogue that the batch needs.  `window`
    is empty where the batch belongs to no window.  `waits` says that the batch is a checkpoint whose window may still
    close, so it is not sent; `withdrawn` then says why its bytes had to go, if they had.
    """

    row: int
    epoch: str
    seq: int
    lane: Lane
    priority: int
    campaign: str
    size_bytes: int
    digest: bytes
    samples: int
    first_t_us: int | None
    last_t_us: int | None
    refers: bytes | None = None
    window: str = ""
    fragment: int = 0
    fragments: int = 0
    waits: bool = False
    withdrawn: Reason | None = None

    @property
    def key(self) -> BatchId:
        """The id of the batch."""
        return BatchId(self.epoch, self.seq)

    @property
    def name(self) -> BatchName:
        """The name of its file."""
        return BatchName(
            self.epoch,
            self.seq,
            self.lane,
            self.priority,
            checksum_of(self.digest),
            self.window,
            self.fragment,
            self.fragments,
        )

    def as_held(self) -> Held:
        """Return what retention needs to know."""
        return Held(self.row, self.lane, self.priority, self.size_bytes)


def entry_of(batch: SealedBatch) -> Entry:
    """Return the entry for `batch`; it has no row yet."""
    place = batch.fragment or Fragment(batch.id.epoch if batch.waits else "", 0, 0)
    return Entry(
        0,
        batch.id.epoch,
        batch.id.seq,
        batch.lane,
        batch.priority,
        batch.campaign,
        len(batch.content),
        hashlib.sha256(batch.content).digest(),
        batch.samples,
        batch.first_t_us,
        batch.last_t_us,
        batch.refers,
        place.window,
        place.number,
        place.count,
        batch.waits,
    )


def adopted_entry(name: BatchName, content: bytes, *, waits: bool) -> Entry:
    """Return the entry for a file that no index knows."""
    return Entry(
        0,
        name.epoch,
        name.seq,
        name.lane,
        name.priority,
        "",
        len(content),
        hashlib.sha256(content).digest(),
        0,
        None,
        None,
        UNKNOWN,
        name.window,
        name.fragment,
        name.fragments,
        waits,
    )


def loss_of(entry: Entry, reason: Reason, detail: str = "") -> Loss:
    """Return the record of a batch's loss."""
    return Loss(
        reason,
        lane=entry.lane,
        campaign=entry.campaign,
        detail=detail,
        epoch=entry.epoch,
        batches=1,
        samples=entry.samples,
        first_seq=entry.seq,
        last_seq=entry.seq,
        first_t_us=entry.first_t_us,
        last_t_us=entry.last_t_us,
    )
