"""A batch on its way into the spool, as a row of its index, and as a record of the loss ledger.

Invariant: what a row says is enough to tell the fleet of the batch's loss, the numbers that it replaced included.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.formats.topics import Lane
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.retention import Held

MAX_PRIORITY: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that wants to be stored.

    `seal` gets the sequence number and returns the sealed bytes; it may be called again, with the same or another
    number, where storing fails and is repeated.  `priority` is the campaign's: smaller is more important.  `carries`
    and `refers` are digests: of the catalogue in the batch, and of the one that it needs.  A `provisional` batch holds
    a part of a window that is still open; `replaces` names (epoch, seq) of those whose place the batch takes.
    """

    lane: Lane
    priority: int
    campaign: str
    seal: Callable[[int], bytes]
    samples: int = 0
    first_t_us: int | None = None
    last_t_us: int | None = None
    carries: bytes | None = None
    refers: bytes | None = None
    provisional: bool = False
    replaces: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        assert 0 <= self.priority <= MAX_PRIORITY
        assert self.lane is Lane.LIVE or not self.provisional


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored batch.  (`epoch`, `seq`) names it for ever; `position` ascends with arrival in this spool.

    `refers`: digest of the catalogue that it needs to be read.  `replaces`: numbers of the provisional batches whose
    place it took.  `provisional`: it waits for the batch of its whole window; `withdrawn` then says why its bytes had
    to go meanwhile, if they had.
    """

    position: int
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
    replaces: tuple[int, ...] = ()
    provisional: bool = False
    withdrawn: Reason | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Its identity within the vehicle."""
        return self.epoch, self.seq

    def as_held(self) -> Held:
        """As retention sees it."""
        return Held(self.position, self.lane, self.priority, self.size_bytes)


def entry_of(epoch: str, seq: int, draft: Draft, content: bytes) -> Entry:
    """The row for `draft`, sealed as `content`; it has no position yet."""
    return Entry(
        0,
        epoch,
        seq,
        draft.lane,
        draft.priority,
        draft.campaign,
        len(content),
        hashlib.sha256(content).digest(),
        draft.samples,
        draft.first_t_us,
        draft.last_t_us,
        draft.refers,
        tuple(number for _, number in draft.replaces),
        draft.provisional,
    )


def loss_of(entry: Entry, reason: Reason, detail: str = "") -> Loss:
    """The record of its loss."""
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


def replaced_by(entry: Entry) -> Iterator[Loss]:
    """What explains the numbers that `entry` replaced, where it will not arrive to say so: a record for each run."""
    numbers = entry.replaces
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    ends = [n for i, n in enumerate(numbers) if i + 1 == len(numbers) or numbers[i + 1] != n + 1]
    for first, last in zip(starts, ends, strict=True):
        yield Loss(
            Reason.REPLACED,
            lane=entry.lane,
            campaign=entry.campaign,
            epoch=entry.epoch,
            batches=last - first + 1,
            first_seq=first,
            last_seq=last,
        )
