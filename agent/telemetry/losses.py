"""The loss ledger's records: what was lost, why, how much, and how records are merged.  Pure.

Invariant: merging and converting keep every count exact; where a ledger must stay small, it is the detail (which
bus, which sequence numbers exactly) that blurs, never a total or a reason.
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
    """One record.  Counts are of what was lost, 0 where unknown or not applicable.

    `first_seq` to `last_seq` of `epoch` is the range that the lost batches lie in (all of it where `batches` says
    so); times are microseconds since the Unix epoch.
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
        """Return the fields in which two records must agree to be merged with no loss except of their times."""
        return self.reason, self.lane, self.bus, self.campaign, self.detail, self.epoch


def adjacent(earlier: Loss, later: Loss) -> bool:
    """Say whether `later` continues `earlier`: same kind, and sequence numbers that follow on (or none at all)."""
    if earlier.kind != later.kind:
        return False
    if earlier.last_seq is None or later.first_seq is None:
        return earlier.last_seq is None and later.first_seq is None
    return later.first_seq == earlier.last_seq + 1


def merge(one: Loss, other: Loss) -> Loss:
    """Return one record for two of the same reason.  Differing fields are blanked, and counts are added up."""
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
        _most(one.last_t_us, other.last_t_us),
    )


def to_event(id_: int, loss: Loss, t_us: int) -> Event:
    """Return the event of kind `loss`, at `t_us`, that carries a loss to the lake; empty fields are left out.

    The id and the epoch of the batch that reports it name the record for ever.  If a batch of losses arrived
    although the vehicle gave it up, its records are reported again, and the receiver recognizes them by that name.
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
    """A counter of losses that are not durable yet, with at most `limit` records in memory.  Not thread-safe."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._losses: list[Loss] = []

    def add(self, loss: Loss) -> None:
        """Count `loss`."""
        loss = replace(loss, detail=loss.detail[:MAX_DETAIL_CHARS])
        for place in range(len(self._losses) - 1, -1, -1):
            counted = self._losses[place]
            full = len(self._losses) >= self._limit
            if adjacent(counted, loss) or (full and counted.reason is loss.reason):
                self._losses[place] = merge(counted, loss)
                return
        self._losses.append(loss)

    def take(self) -> tuple[Loss, ...]:
        """Return everything counted so far, for the ledger, and begin from zero.  Where recording fails, `put_back`."""
        taken, self._losses = tuple(self._losses), []
        return taken

    def put_back(self, losses: Iterable[Loss]) -> None:
        """Count again what could not be recorded."""
        later = self.take()
        for loss in (*losses, *later):
            self.add(loss)


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _most(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)
