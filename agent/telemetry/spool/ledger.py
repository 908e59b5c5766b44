"""The loss ledger of the spool: what was lost, whether the fleet knows, and running totals.  Touches the world.

Invariants: a total never shrinks or blurs; a record stays until the batch that reports it has arrived, and waits again
under its id where that batch is lost.  At most MAX_UNREPORTED records wait that no batch has reported, and MAX_REPORTED
are kept that arrived.  A record that was handed out for a batch does not change any more (`HandedOut`).

Raises sqlite3.Error.
"""
# ruff: noqa: S608  # statements are put together from constants; values are always bound

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss, adjacent, merge
from agent.telemetry.spool.schema import LISTED, lane_of, listed, reason_of

MAX_UNREPORTED: Final = 1_000  # loss records that wait to be reported; beyond it records of one reason are merged
MAX_REPORTED: Final = 1_000
ACKNOWLEDGED: Final = "acknowledged"
ADOPTED: Final = "adopted"
_NAMES: Final = frozenset(Reason) | {ACKNOWLEDGED, ADOPTED}
_ARRIVED: Final = 0  # in the column `reported_in`; rows count from 1
_AGAIN: Final = -1
_LOSS_COLUMNS: Final = (
    "reason, lane, bus, campaign, detail, epoch, batches, samples, frames, first_seq, last_seq, first_t_us, last_t_us"
)


@dataclass(frozen=True, slots=True)
class Total:
    """A running total since the epoch began."""

    batches: int
    samples: int
    frames: int


@dataclass(slots=True)
class HandedOut:
    """The highest id of a loss record that was handed out for a batch of events.

    Records up to `last_id` may already stand in a batch, so nothing is merged into them, and a new index begins its ids
    after it.  The mark lives as long as the open spool, longer than one connection to its index.
    """

    last_id: int = 0


class Ledger:
    """Statements of one connection; what writes is used within a transaction."""

    def __init__(self, connection: sqlite3.Connection, handed_out: HandedOut) -> None:
        self._db = connection
        self._handed_out = handed_out
        self._all_reported = False  # what the last look found, to save further ones

    def check(self) -> None:
        """Read every record.  Raises sqlite3.DatabaseError for a value that the spool never writes."""
        self.unreported_losses(-1)
        if self.totals().keys() - _NAMES:
            raise sqlite3.DatabaseError("index counts what is neither acknowledged nor lost")

    def count(self, name: str, *, batches: int = 0, samples: int = 0, frames: int = 0) -> None:
        """Add to a running total."""
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET batches = batches +"
            " excluded.batches, samples = samples + excluded.samples, frames = frames + excluded.frames",
            (name, batches, samples, frames),
        )

    def totals(self) -> dict[str, Total]:
        """Return all running totals."""
        return {name: Total(*counts) for name, *counts in self._db.execute("SELECT * FROM totals")}

    def add(self, loss: Loss) -> None:
        """Record a loss that waits to be reported, and count it."""
        self.count(loss.reason.value, batches=loss.batches, samples=loss.samples, frames=loss.frames)
        self._all_reported = False
        mergeable = "reported_in IS NULL AND reason = ? AND id > ? ORDER BY id DESC LIMIT 64"
        rows = self._losses(mergeable, loss.reason.value, self._handed_out.last_id)
        same = next(((id_, waiting) for id_, waiting in rows if adjacent(waiting, loss)), None)
        if same is None and rows and self.unreported() >= MAX_UNREPORTED:
            same = rows[0]
        if same is not None:
            id_, waiting = same
            self._replace_loss(id_, merge(waiting, loss))
            return
        marks = ", ".join("?" * 13)
        self._db.execute(f"INSERT INTO losses ({_LOSS_COLUMNS}) VALUES ({marks})", _loss_row(loss))

    def _replace_loss(self, id_: int, loss: Loss) -> None:
        assignments = ", ".join(f"{name} = ?" for name in _LOSS_COLUMNS.split(", "))
        self._db.execute(f"UPDATE losses SET {assignments} WHERE id = ?", (*_loss_row(loss), id_))

    def unreported(self) -> int:
        """Return the number of records that no stored batch reports.

        At most MAX_UNREPORTED of them were never in a batch, plus one for each reason after the records handed out.
        """
        count = "SELECT count(*) FROM losses WHERE reported_in"
        return int(self._db.execute(f"SELECT ({count} IS NULL) + ({count} = {_AGAIN})").fetchone()[0])

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Return the oldest records that no stored batch reports, with their ids; -1: all.

        Records that a lost batch had reported come first.
        """
        if self._all_reported:
            return []
        again = self._losses(f"reported_in = {_AGAIN} ORDER BY id LIMIT ?", limit)
        left = limit if limit < 0 else limit - len(again)
        found = [*again, *self._losses("reported_in IS NULL ORDER BY id LIMIT ?", left)]
        self._all_reported = limit != 0 and not found
        return found

    def hand_out(self, limit: int) -> list[tuple[int, Loss]]:
        """Return what `unreported_losses` returns, for a batch, and never change these records from now on."""
        losses = self.unreported_losses(limit)
        self._handed_out.last_id = max([self._handed_out.last_id, *(id_ for id_, _ in losses)])
        return losses

    def report(self, ids: Iterable[int], row: int) -> None:
        """Mark records as reported inside the batch in `row`."""
        self._db.executemany("UPDATE losses SET reported_in = ? WHERE id = ?", [(row, id_) for id_ in ids])

    def settle_reported(self, rows: Iterable[int]) -> None:
        """Mark the records that arrived with the batches in `rows`."""
        arrived = f"UPDATE losses SET reported_in = ? WHERE reported_in IN {LISTED}"
        if self._db.execute(arrived, (_ARRIVED, listed(rows))).rowcount:
            kept = "SELECT id FROM losses WHERE reported_in = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            oldest = self._db.execute(kept, (_ARRIVED, MAX_REPORTED)).fetchone()
            if oldest is not None:
                self._db.execute("DELETE FROM losses WHERE reported_in = ? AND id <= ?", (_ARRIVED, oldest[0]))

    def unreport(self, row: int) -> None:
        """Let the records in a lost batch wait again, unchanged and under their ids.

        The batch may nevertheless have arrived; the receiver then recognizes a repeated record by its id.
        """
        self._all_reported = False
        self._db.execute("UPDATE losses SET reported_in = ? WHERE reported_in = ?", (_AGAIN, row))

    def all(self) -> list[Loss]:
        """Return every record that is kept, whether it arrived or not."""
        return [_loss(row) for row in self._db.execute(f"SELECT {_LOSS_COLUMNS} FROM losses ORDER BY id")]

    def _losses(self, where: str, *values: object) -> list[tuple[int, Loss]]:
        statement = f"SELECT id, {_LOSS_COLUMNS} FROM losses WHERE {where}"
        return [(id_, _loss(row)) for id_, *row in self._db.execute(statement, values)]


def _loss(row: Iterable[Any]) -> Loss:
    reason, lane, *rest = row
    return Loss(reason_of(reason), None if lane is None else lane_of(lane), *rest)


def _loss_row(loss: Loss) -> tuple[object, ...]:
    return (
        loss.reason.value,
        None if loss.lane is None else loss.lane.value,
        loss.bus,
        loss.campaign,
        loss.detail,
        loss.epoch,
        loss.batches,
        loss.samples,
        loss.frames,
        loss.first_seq,
        loss.last_seq,
        loss.first_t_us,
        loss.last_t_us,
    )
