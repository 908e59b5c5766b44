"""The loss ledger of the spool: what was lost, whether the fleet was told, and running totals.  Touches the world.

Invariants: a total never shrinks or blurs; a record stays until the batch that reports it has arrived, and waits again
under its id where that batch is lost.  At most MAX_UNREPORTED records wait that no batch has reported, and MAX_TOLD are
kept that arrived.

Raises sqlite3.Error.
"""
# ruff: noqa: S608  # statements are put together from constants; values are always bound

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.telemetry.losses import Loss, Reason, adjacent, merge
from agent.telemetry.spool_schema import LISTED, lane_of, listed, reason_of

MAX_UNREPORTED: Final = 1_000  # loss records that wait to be reported; beyond it records of one reason are merged
MAX_TOLD: Final = 1_000
ACKNOWLEDGED: Final = "acknowledged"
ADOPTED: Final = "adopted"
REPLACED: Final = "replaced"
_NAMES: Final = frozenset(Reason) | {ACKNOWLEDGED, ADOPTED, REPLACED}
_TOLD: Final = 0  # in the column `reported_in`; positions count from 1
_AGAIN: Final = -1
_LOSS_COLUMNS: Final = (
    "reason, lane, bus, campaign, detail, epoch, batches, samples, frames, first_seq, last_seq, first_t_us, last_t_us"
)


@dataclass(frozen=True, slots=True)
class Total:
    """A running total."""

    batches: int
    samples: int
    frames: int


class Ledger:
    """Statements of one connection; what writes is used within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.told = 0
        """Losses up to this id may stand in a batch under way: nothing is merged into them, no id is used again."""
        self._all_reported = False  # as far as is known: saves looking

    def check(self) -> None:
        """Read it all.  Raises sqlite3.DatabaseError where a value cannot be one of ours."""
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
        """All running totals."""
        return {name: Total(*counts) for name, *counts in self._db.execute("SELECT * FROM totals")}

    def add(self, loss: Loss) -> None:
        """Record a loss that waits to be reported, and count it."""
        self.count(loss.reason.value, batches=loss.batches, samples=loss.samples, frames=loss.frames)
        self.add_explanation(loss)

    def add_explanation(self, loss: Loss) -> None:
        """Record what waits to be reported and is counted already."""
        self._all_reported = False
        mergeable = "reported_in IS NULL AND reason = ? AND id > ? ORDER BY id DESC LIMIT 64"
        rows = self._losses(mergeable, loss.reason.value, self.told)
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
        """Loss records that no stored batch reports; of those that none has reported at most MAX_UNREPORTED, and one a
        reason after those `told`."""
        count = "SELECT count(*) FROM losses WHERE reported_in"
        return int(self._db.execute(f"SELECT ({count} IS NULL) + ({count} = {_AGAIN})").fetchone()[0])

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """The oldest of them, those that were reported before first, with the ids that `report` takes; -1: all."""
        if self._all_reported:
            return []
        again = self._losses(f"reported_in = {_AGAIN} ORDER BY id LIMIT ?", limit)
        left = limit if limit < 0 else limit - len(again)
        found = [*again, *self._losses("reported_in IS NULL ORDER BY id LIMIT ?", left)]
        self._all_reported = limit != 0 and not found
        return found

    def report(self, ids: Iterable[int], position: int) -> None:
        """Mark losses as reported inside the batch at `position`."""
        self._db.executemany("UPDATE losses SET reported_in = ? WHERE id = ?", [(position, id_) for id_ in ids])

    def tell_reported(self, positions: Iterable[int]) -> None:
        """The batches at `positions` arrived: the losses that they reported are told."""
        told = f"UPDATE losses SET reported_in = ? WHERE reported_in IN {LISTED}"
        if self._db.execute(told, (_TOLD, listed(positions))).rowcount:
            kept = "SELECT id FROM losses WHERE reported_in = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            oldest = self._db.execute(kept, (_TOLD, MAX_TOLD)).fetchone()
            if oldest is not None:
                self._db.execute("DELETE FROM losses WHERE reported_in = ? AND id <= ?", (_TOLD, oldest[0]))

    def unreport(self, position: int) -> None:
        """The batch at `position` will not arrive, or not again: the losses that it reported wait as they are under
        their ids, so that who hears of one twice knows it."""
        self._all_reported = False
        self._db.execute("UPDATE losses SET reported_in = ? WHERE reported_in = ?", (_AGAIN, position))

    def all(self) -> list[Loss]:
        """Every record that is kept, told or not."""
        return [_loss(row) for row in self._db.execute(f"SELECT {_LOSS_COLUMNS} FROM losses ORDER BY id")]

    def restore(self, losses: Iterable[tuple[int, Loss]], totals: Mapping[str, Total]) -> None:
        """Put back what `unreported_losses` and `totals` said before a transaction that is taken back."""
        self._all_reported = False
        self._db.execute("DELETE FROM losses WHERE reported_in IS NULL")
        marks = ", ".join("?" * 14)
        self._db.executemany(
            f"INSERT OR IGNORE INTO losses (id, {_LOSS_COLUMNS}) VALUES ({marks})",  # there: what waits again
            [(id_, *_loss_row(loss)) for id_, loss in losses],
        )
        self._db.execute("DELETE FROM totals")
        for name, total in totals.items():
            self.count(name, batches=total.batches, samples=total.samples, frames=total.frames)

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
