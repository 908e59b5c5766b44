"""Keeps the loss ledger of the spool: loss records, whether the fleet has each record, and running totals.

Invariants: totals are exact and never shrink.  A record is kept at least until a batch that reports the record has
arrived.  If the batch that reports a record is lost, the record waits to be reported again, under the same id.
MAX_UNREPORTED and MAX_REPORTED bound the number of records.  A record that was handed out for a batch never changes
again (`HandedOut`).

Methods raise sqlite3.Error.
"""
# ruff: noqa: S608  # statements are composed of constants; values are always bound

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss, adjacent, merge
from agent.telemetry.spool.schema import LISTED, lane_of, listed, reason_of

MAX_UNREPORTED: Final = 1_000  # records that wait to be reported; once there are more, those of one reason are merged
MAX_REPORTED: Final = 1_000  # records that arrived and are still kept
ACKNOWLEDGED: Final = "acknowledged"
ADOPTED: Final = "adopted"
_NAMES: Final = frozenset(Reason) | {ACKNOWLEDGED, ADOPTED}
_ARRIVED: Final = 0  # in the column `reported_in`: the batch has arrived; rows count from 1
_AGAIN: Final = -1  # in the column `reported_in`: the batch is lost, so the record waits again
_LOSS_COLUMNS: Final = (
    "reason, lane, bus, campaign, detail, epoch, batches, samples, frames, first_seq, last_seq, first_t_us, last_t_us"
)


class Total(msgspec.Struct, frozen=True):
    """Counts the batches, samples and frames recorded under one name since the epoch began."""

    batches: int
    samples: int
    frames: int


@dataclass(slots=True)
class HandedOut:
    """Keeps the highest id of the loss records that were handed out for a batch of events.

    Records up to `last_id` may already be in a batch, so no loss is merged into these records.  The ids of a new index
    begin after `last_id`, so that no id names two records.  This object exists as long as the spool is open, even if
    the index is opened again after an error.
    """

    last_id: int = 0


class Ledger:
    """Reads and writes the ledger of one index.  Methods that write must be called within a transaction."""

    def __init__(self, connection: sqlite3.Connection, handed_out: HandedOut) -> None:
        self._db = connection
        self._handed_out = handed_out
        self._all_reported = False  # whether the last query found nothing to report, which saves further queries

    def check(self) -> None:
        """Read every unreported record and all totals.

        Raises sqlite3.DatabaseError for a value that the spool never writes.
        """
        self.unreported_losses(-1)
        if self.totals().keys() - _NAMES:
            raise sqlite3.DatabaseError("the index has a running total under an unknown name")

    def count(self, name: str, *, batches: int = 0, samples: int = 0, frames: int = 0) -> None:
        """Add to the running total `name`, which is ACKNOWLEDGED, ADOPTED or the reason of a loss."""
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET batches = batches +"
            " excluded.batches, samples = samples + excluded.samples, frames = frames + excluded.frames",
            (name, batches, samples, frames),
        )

    def totals(self) -> dict[str, Total]:
        """Return all running totals."""
        return {name: Total(*counts) for name, *counts in self._db.execute("SELECT * FROM totals")}

    def add(self, loss: Loss) -> None:
        """Record a loss, which then waits to be reported, and add it to the totals.

        The loss may be merged into a record that waits already.
        """
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
        """Return the number of records that wait to be put into a batch, for the first time or again.

        The number may exceed MAX_UNREPORTED.  Once MAX_UNREPORTED records wait, a further loss is merged into a waiting
        record of the same reason that was not handed out.  If there is no such record, the loss gets a new record.
        """
        count = "SELECT count(*) FROM losses WHERE reported_in"
        return int(self._db.execute(f"SELECT ({count} IS NULL) + ({count} = {_AGAIN})").fetchone()[0])

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Return up to `limit` records that wait to be put into a batch, each with its id.

        Records that were in a lost batch come first, then all others; within both groups, the oldest come first.  With
        `limit` -1, all waiting records are returned.
        """
        if self._all_reported:
            return []
        again = self._losses(f"reported_in = {_AGAIN} ORDER BY id LIMIT ?", limit)
        left = limit if limit < 0 else limit - len(again)
        found = [*again, *self._losses("reported_in IS NULL ORDER BY id LIMIT ?", left)]
        self._all_reported = limit != 0 and not found
        return found

    def hand_out(self, limit: int) -> list[tuple[int, Loss]]:
        """Return up to `limit` unreported losses, each with its id, to be put into a batch of events.

        From now on, no other loss is merged into these records, because the batch may contain them.
        """
        losses = self.unreported_losses(limit)
        self._handed_out.last_id = max([self._handed_out.last_id, *(id_ for id_, _ in losses)])
        return losses

    def report(self, ids: Iterable[int], row: int) -> None:
        """Mark records as reported by the batch in row `row`."""
        self._db.executemany("UPDATE losses SET reported_in = ? WHERE id = ?", [(row, id_) for id_ in ids])

    def settle_reported(self, rows: Iterable[int]) -> None:
        """Mark the records in the batches with the row numbers `rows` as arrived.

        Of all records that have arrived, only the newest MAX_REPORTED are kept.
        """
        arrived = f"UPDATE losses SET reported_in = ? WHERE reported_in IN {LISTED}"
        if self._db.execute(arrived, (_ARRIVED, listed(rows))).rowcount:
            kept = "SELECT id FROM losses WHERE reported_in = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            oldest = self._db.execute(kept, (_ARRIVED, MAX_REPORTED)).fetchone()
            if oldest is not None:
                self._db.execute("DELETE FROM losses WHERE reported_in = ? AND id <= ?", (_ARRIVED, oldest[0]))

    def unreport(self, row: int) -> None:
        """Mark the records in the lost batch of row `row` as waiting again.

        The contents and the ids of the records do not change.  The lost batch may have arrived all the same.  The
        receiver then recognizes the repeated records by their ids.
        """
        self._all_reported = False
        self._db.execute("UPDATE losses SET reported_in = ? WHERE reported_in = ?", (_AGAIN, row))

    def all(self) -> list[Loss]:
        """Return every record that is kept, whether it has arrived or not."""
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
