"""Describes losses as records (what was lost, why and how much) and merges such records.  This file is pure.

Invariant: merging, and converting to events, keep every count and every reason exact.  Merging may only blur details,
such as the bus or the exact sequence numbers, to keep a ledger small.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from agent.formats.topics import Lane
from agent.formats.up.columns import Event, EventValue
from agent.formats.up.losses import Reason

MAX_DETAIL_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Loss:
    """A record of one loss.

    `batches`, `samples` and `frames` count what was lost; 0 means unknown or not applicable.  The lost batches lie in
    the range `first_seq` to `last_seq` of `epoch`.  If `batches` is smaller than the range, the other batches of the
    range were not lost.  Times are microseconds since the Unix epoch.  If a loss
    has `first_t_us` but not `last_t_us`, its end is unknown.
    """

    reason: Reason
    lane: Lane | None = None
    bus: str | None = None
    campaign: str = ""
    detail: str = ""
    epoch: str = ""
    batches: int = 0
    samples: int = 0
    frames: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    first_t_us: int | None = None
    last_t_us: int | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Return the reason, and the fields that `merge` blanks if they differ between two records."""
        return self.reason, self.lane, self.bus, self.campaign, self.detail, self.epoch


def adjacent(earlier: Loss, later: Loss) -> bool:
    """Return whether `later` is of the same kind as `earlier` and begins at the next sequence number.

    Two records of the same kind that name no sequence numbers are adjacent, too.
    """
    if earlier.kind != later.kind:
        return False
    if earlier.last_seq is None or later.first_seq is None:
        return earlier.last_seq is None and later.first_seq is None
    return later.first_seq == earlier.last_seq + 1


def merge(one: Loss, other: Loss) -> Loss:
    """Merge two records of the same reason into one.

    Counts are added up, and ranges of numbers and times are extended to cover both records.  Other fields that differ
    are blanked.  If the epochs differ, the sequence numbers are blanked, too.
    """
    assert one.reason is other.reason
    same_epoch = one.epoch == other.epoch
    return Loss(
        one.reason,
        one.lane if one.lane == other.lane else None,
        one.bus if one.bus == other.bus else None,
        one.campaign if one.campaign == other.campaign else "",
        one.detail if one.detail == other.detail else "",
        one.epoch if same_epoch else "",
        one.batches + other.batches,
        one.samples + other.samples,
        one.frames + other.frames,
        _least(one.first_seq, other.first_seq) if same_epoch else None,
        _most(one.last_seq, other.last_seq) if same_epoch else None,
        _least(one.first_t_us, other.first_t_us),
        None if _is_open(one) or _is_open(other) else _most(one.last_t_us, other.last_t_us),
    )


def to_event(id_: int, loss: Loss, t_us: int) -> Event:
    """Return the event that reports `loss` to the lake.  `t_us` is the event's time; empty fields are left out.

    The name of a record, which never changes, is `id_` together with the epoch of the batch that carries the event.  A
    batch with such events may arrive although the vehicle counts it as lost.  The vehicle then reports the records of
    that batch again, and the receiver recognizes them by their names.
    """
    fields: dict[str, EventValue] = {"id": id_, "reason": loss.reason.value}
    if loss.lane is not None:
        fields["lane"] = loss.lane.label
    for name in ("bus", "campaign", "detail", "epoch", "batches", "samples", "frames"):
        if value := getattr(loss, name):
            fields[name] = value
    for name in ("first_seq", "last_seq", "first_t_us", "last_t_us"):
        if (value := getattr(loss, name)) is not None:
            fields[name] = value
    return Event(t_us, "loss", fields)


class LossCounter:
    """Counts losses that are not durable yet.  Not thread-safe.

    Once `limit` records are held, a new loss is merged into a held record of the same reason, so that memory stays
    bounded.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._losses: list[Loss] = []

    def add(self, loss: Loss) -> None:
        """Count `loss`, with its detail cut to MAX_DETAIL_CHARS."""
        loss = replace(loss, detail=loss.detail[:MAX_DETAIL_CHARS])
        for place in range(len(self._losses) - 1, -1, -1):
            counted = self._losses[place]
            full = len(self._losses) >= self._limit
            if adjacent(counted, loss) or (full and counted.reason is loss.reason):
                self._losses[place] = merge(counted, loss)
                return
        self._losses.append(loss)

    def take(self) -> tuple[Loss, ...]:
        """Return all counted losses for the ledger, and forget them.

        If the ledger cannot record the losses, pass them to `put_back`.
        """
        taken, self._losses = tuple(self._losses), []
        return taken

    def put_back(self, losses: Iterable[Loss]) -> None:
        """Count `losses` again, because the ledger could not record them.  They come before newer losses."""
        later = self.take()
        for loss in (*losses, *later):
            self.add(loss)


def _is_open(loss: Loss) -> bool:
    return loss.first_t_us is not None and loss.last_t_us is None


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _most(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
