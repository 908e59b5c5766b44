"""Defines a sealed batch to store, a row of the spool's index, and the record of a batch's loss.  This file is pure.

Invariant: the row of a batch has everything that is needed to record the loss of the batch.

Identity.  A batch is named by its batch id, which is an epoch and a sequence number.  Ordinary batches are numbered in
the epoch of the spool.  A checkpoint is numbered within its window, and its epoch is the *window id*.  For example, the
third checkpoint of window w has the batch id (w, 3).  When a window is stored, its checkpoints are dropped.  Dropping
them leaves no gap in the numbers of the spool's epoch.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.acks import Sealed
from agent.formats.up.losses import Reason
from agent.formats.up.seal import DIGEST_BYTES
from agent.telemetry.losses import Loss
from agent.telemetry.spool.names import BatchName, checksum_of
from agent.telemetry.spool.retention import Held

MAX_PRIORITY: Final = 2**31 - 1
UNKNOWN: Final = b""  # stands for the catalogue of a batch that was adopted without an index


class BatchId(NamedTuple):
    """The permanent name of a batch."""

    epoch: str
    seq: int


class Fragment(msgspec.Struct, frozen=True):
    """The place of a batch in its window: fragment `number` of `count`, counted from 1."""

    window: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A sealed batch that is to be stored.

    `priority` is the priority of the campaign; a smaller number is more important.  `carries` is the digest of the
    catalogue in the batch.  `refers` is the digest of the catalogue that the batch needs.  `fragment` is None for
    events, catalogues and checkpoints.  `reports` has the ids of the loss records that the batch contains.  A
    checkpoint has `waits` set, and its epoch is the id of its window.
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
    """A stored batch, as a row of the index describes it.

    A batch that was stored later has a larger `row`.  `refers` is the digest of the catalogue that the batch needs.
    `window` is empty if the batch belongs to no window.  `waits` is set for a checkpoint whose window may still close;
    such a checkpoint is not sent.  If its file was removed to make room, `withdrawn` names the limit.  For any other
    batch, `withdrawn` names the limit because of which only memory has the bytes (agent.telemetry.spool.memory).
    `digest` is the whole SHA-256 of the content.
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
    def sealed(self) -> Sealed:
        """Return the number and the digest by which an acknowledgement names the batch."""
        return Sealed(self.seq, self.digest[:DIGEST_BYTES])

    @property
    def name(self) -> BatchName:
        """The name of the batch's file."""
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
        """Return the fields that retention needs."""
        return Held(self.row, self.lane, self.priority, self.size_bytes)


def entry_of(batch: SealedBatch) -> Entry:
    """Return the entry for `batch`.  The entry's `row` is 0, because the index has no row for the batch yet."""
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
    """Return the entry for a file whose batch no index lists.

    The entry's `row` is 0.  Its `refers` is UNKNOWN, and its campaign, samples and times are blank, because only the
    lost index had these values.
    """
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
