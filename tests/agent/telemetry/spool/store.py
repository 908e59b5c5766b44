"""Provides a spool with writer and reader in one object, and drafts of batches that seal themselves."""

import itertools
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Fragment, SealedBatch
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.schema import Connect, connect
from agent.telemetry.spool.spool import Spool

WINDOW = "e" * 32
_tokens = itertools.count(1)


@dataclass(frozen=True)
class Draft:
    """A batch that is to be stored.  `seal` gets the sequence number and returns the content.

    `checkpoint` is set if the batch is a checkpoint of that id.  `window` is the id of a window whose only fragment the
    batch is.
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
    checkpoint: BatchId | None = None
    window: str = ""

    def sealed(self, id_: BatchId, reports: Collection[int] = ()) -> SealedBatch:
        return SealedBatch(
            id_,
            self.lane,
            self.priority,
            self.seal(id_.seq),
            self.campaign,
            self.samples,
            self.first_t_us,
            self.last_t_us,
            self.carries,
            self.refers,
            Fragment(self.window, 1, 1) if self.window else None,
            tuple(reports),
            self.checkpoint is not None,
        )


def cut(draft: Draft, count: int) -> list[SealedBatch]:
    """Return `count` fragments of one window, without ids yet."""
    return [
        replace(draft.sealed(BatchId("", number)), fragment=Fragment(draft.window, number, count))
        for number in range(1, count + 1)
    ]


class Store(Spool):
    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        clock: Callable[[], Clock] | None = None,
        disk: Disk | None = None,
        open_database: Connect = connect,
        runtime_folder: Path | None = None,
    ) -> None:
        super().__init__(
            folder, limits, clock=clock, disk=disk, open_database=open_database, runtime_folder=runtime_folder
        )
        self.stored = self.writer.stored
        self.unreported_losses = self.writer.unreported_losses
        self.keep_catalogues = self.writer.keep_catalogues
        self.catalogues = self.writer.catalogues
        self.pending = self.reader.pending
        self.read = self.reader.read
        self.refuse = self.reader.refuse
        self.give_up_unreadable = self.reader.give_up_unreadable
        self.catalogue = self.reader.catalogue
        self.sweep = self.reader.sweep

    def record_losses(self, losses: Iterable[Loss]) -> None:
        self.writer.record_losses(losses, token=secrets.token_hex(8))

    def promote(self, windows: Iterable[str]) -> None:
        """Turn all checkpoints of lost windows into batches to send."""
        self.writer.record_losses([], token=secrets.token_hex(8), windows=dict.fromkeys(windows, 10**6))

    def acknowledge(self, epoch: str, seqs: Collection[int], *, end_to_end: bool = True) -> int:
        """Acknowledge the batches that are stored under these numbers, and return how many were removed."""
        with self._transactions.reading() as index:
            stored = {entry.sealed for entry in index.rows.all() if (entry.epoch, entry.seq in seqs) == (epoch, True)}
            carriers = index.catalogues.all().values()
            stored |= {each.sealed for each in carriers if (each.epoch, each.seq in seqs) == (epoch, True)}
        return len(self.reader.acknowledge(epoch, stored, end_to_end=end_to_end).removed)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        quota_bytes: int,
        max_age_s: float,
        reserve_bytes: int,
        clock: Callable[[], Clock] | None = None,
        disk: Disk | None = None,
        open_database: Connect = connect,
    ) -> "Store":
        limits = Limits.of(quota_bytes, max_age_s, reserve_bytes)
        return cls(folder, limits, clock=clock, disk=disk, open_database=open_database)

    def append(
        self,
        draft: Draft,
        *,
        reports: Collection[int] = (),
        resume_points: Mapping[str, int] | None = None,
        token: str | None = None,
    ) -> int:
        return self.append_all([draft], reports=reports, resume_points=resume_points, token=token)[0]

    def append_all(
        self,
        drafts: Sequence[Draft],
        *,
        reports: Collection[int] = (),
        resume_points: Mapping[str, int] | None = None,
        token: str | None = None,
    ) -> list[int]:
        """Store drafts under the next ids, and return their numbers.  The first draft reports the losses `reports`."""
        ids = iter(self.writer.next_ids(len(drafts)))
        batches = [
            draft.sealed(draft.checkpoint or next(ids), () if number else reports)
            for number, draft in enumerate(drafts)
        ]
        self.writer.append(batches, token=token or f"t{next(_tokens)}", resume_points=resume_points)
        return [batch.id.seq for batch in batches]
