"""Brings batches from memory to the disk as soon as the disk has room again or works again."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.telemetry.spool.batch import Entry, SealedBatch, entry_of, loss_of
from agent.telemetry.spool.boots import Moment
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.memory import Memory
from agent.telemetry.spool.room import Misfits, Room
from agent.telemetry.spool.shortage import Shortages
from agent.telemetry.spool.stopgap import Note, record
from agent.telemetry.spool.transactions import Transactions

KEPT_AT_ONCE: Final = 64
"""At most this many batches go from memory to the disk in one transaction; they have at most 4 MB."""
T = TypeVar("T")


class CatchUp:
    """Moves batches to the disk.  The outbox calls it, one method at a time, while none of its appends is in doubt."""

    def __init__(
        self, transactions: Transactions, folder: SpoolFolder, room: Room, *, clock: Callable[[], Clock]
    ) -> None:
        self._transactions = transactions
        self._memory = transactions.memory
        self._stopgap = transactions.stopgap
        self._folder = folder
        self._room = room
        self._clock = clock

    def keep(self, token: str) -> None:
        """Move batches from memory to the disk, as far as the disk has room without an eviction.

        `token` names an append, so no other append may be in doubt.  Raises Transient.
        """
        with self._transactions.turn:
            if not len(self._memory):
                return
            chosen: list[Entry] = []
            with self._transactions.reading() as index:
                spare_bytes = self._measured(lambda: self._room.spare_bytes(index))
            for entry in self._memory.entries():
                spare_bytes -= entry.size_bytes
                if spare_bytes < 0 or len(chosen) == KEPT_AT_ONCE:
                    break
                chosen.append(entry)
            if not chosen:
                return
            contents = {self._folder.path(entry.name): self._memory.content(entry.key) or b"" for entry in chosen}
            with self._transactions.storing(token, contents, closes=frozenset(), dropped=[]) as index:
                for entry in chosen:
                    index.rows.keep(entry.row, entry.size_bytes)
            for entry in chosen:
                self._memory.drop(entry.key)

    def take_over(self) -> None:
        """Store the batches that wait in the stopgap, and record what became of the others.  Raises Transient.

        If this raises Transient, everything stays in the stopgap, and the call may be repeated.
        """
        with self._transactions.turn:
            note, waiting = self._stopgap.note(), self._stopgap.waiting()
            if note is None:
                return
            # An earlier call may have reported failure although its transaction was committed.
            if not self._transactions.stored(note.token):
                try:
                    self._stopgap.frozen = False
                    self._store(note, waiting)
                except Transient:
                    self._stopgap.frozen = self._in_doubt(note.token)
                    raise
            self._stopgap.frozen = False
            self._stopgap.settle()

    def _in_doubt(self, token: str) -> bool:
        """Return whether a call that raised may have been committed.  A full disk can still be read to find out."""
        if self._transactions.tried(token):
            with contextlib.suppress(Transient):
                self._transactions.stored(token)
        return self._transactions.tried(token)

    def _store(self, note: Note, waiting: Sequence[SealedBatch]) -> None:
        entries = [entry_of(batch) for batch in waiting]
        with self._transactions.reading() as index:
            dropped = index.checkpoints.of(note.windows)
            misfits = self._room.make(index, entries, dropped)
        self._measured(lambda: self._folder.prepare_epoch(self._stopgap.epoch))
        contents = {
            self._folder.path(entry.name): batch.content
            for entry, batch in zip(entries, waiting, strict=True)
            if entry.key not in misfits.held and entry.key not in misfits.refused
        }
        closes = frozenset(note.windows)
        with self._transactions.storing(
            note.token, contents, closes=closes, dropped=dropped, held=misfits.held
        ) as index:
            record(index, note)
            now = index.boots.note(self._clock())
            for entry, batch in zip(entries, waiting, strict=True):
                add_row(index, self._memory, entry, batch, now=now, misfits=misfits)
                if batch.lane is not Lane.EVENTS and batch.last_t_us is not None:
                    index.reached.set(batch.campaign, batch.last_t_us)

    def shortages(self) -> Shortages:
        """Return why the spool has too little room, by name, with a text for each reason.  Raises Transient."""
        with self._transactions.reading() as index:
            return self._measured(lambda: self._room.shortages(index))

    def _measured(self, measure: Callable[[], T]) -> T:
        try:
            return measure()
        except OSError as error:
            raise self._folder.refuses(error) from error


def add_row(index: Index, memory: Memory, entry: Entry, batch: SealedBatch, *, now: Moment, misfits: Misfits) -> None:
    """Add the row of a batch.  If neither disk nor memory had room for the batch, record its loss instead.

    A batch that is held in memory, and a checkpoint without room, get a row that is marked as withdrawn.
    """
    held, refused = misfits.held.get(entry.key), misfits.refused.get(entry.key)
    if refused is not None and not entry.waits:
        index.ledger.add(loss_of(entry, refused))
        return
    marked = entry if held is None is refused else replace(entry, size_bytes=0, withdrawn=held or refused)
    row = index.rows.add(marked, now)
    index.ledger.report(batch.reports, row)
    if held is not None:
        memory.hold(replace(entry, row=row, withdrawn=held), batch.content)
