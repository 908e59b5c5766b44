"""The stopgap holds batches while the disk refuses, so that an online vehicle delivers its fresh data without the disk.

The index cannot use up a number then, and a number must never name two batches.  The batches of the stopgap are
therefore numbered in an epoch of their own, which begins with each start of the agent.  The fleet treats this epoch
like that of a window's checkpoints.  When the disk works again, `CatchUp.take_over` stores what waits, under its
numbers, and records what became of the others.

The note.  The frames of a batch in the stopgap are released, and its resume points are not on the disk.  If the process
is killed, a packet ring would deliver these frames again, and the lake would have them twice.  So before a batch can be
sent, a note in the runtime folder, which lies in RAM like the rings, says what the next start must record: the resume
points, the loss of the batches that wait, and the windows whose checkpoints must not be sent.  A power cut ends the
rings and the note together; the index then names the time since the last durable frame as lost.
"""

import contextlib
import secrets
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal, Sealed
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import MAX_DETAIL_CHARS, Loss, adjacent, merge
from agent.telemetry.spool.batch import BatchId, Entry, SealedBatch, entry_of, loss_of
from agent.telemetry.spool.batches import Keys
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ACKNOWLEDGED, ADOPTED

NOTE: Final = "stopgap.json"
MAX_LOSSES: Final = 256
"""At most this many records of loss are kept apart; further ones are merged, so that they stay small in memory."""


class Note(msgspec.Struct, frozen=True):
    """Says what the index must record if the process ends while batches are in the stopgap.

    `token` names the append that records it.  `batches` counts the numbers of the stopgap that were used since the last
    such append.  Of these, `acknowledged` batches with `acknowledged_samples` samples have arrived.
    """

    token: str
    batches: int
    acknowledged: int
    acknowledged_samples: int
    losses: tuple[Loss, ...]
    resume_points: dict[str, int]
    windows: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """Holds what has happened since the disk refused."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    used: int = 0
    acknowledged: int = 0
    acknowledged_samples: int = 0
    losses: list[Loss] = field(default_factory=list)
    resume_points: dict[str, int] = field(default_factory=dict)
    windows: set[str] = field(default_factory=set)


class Stopgap:
    """Holds sealed batches of at most `limit_bytes`.  Any thread may call the methods."""

    def __init__(self, runtime_folder: Path | None, limit_bytes: int) -> None:
        """Make an empty stopgap.  Without a runtime folder, it takes no batch."""
        self._file = None if runtime_folder is None else runtime_folder / NOTE
        self._limit_bytes = limit_bytes
        self._disk = Disk()  # the disk of the runtime folder, not that of the spool
        self._turn = threading.Lock()
        self._batches: dict[BatchId, tuple[Entry, SealedBatch]] = {}
        self._state = _State()
        self.frozen = False  # takes nothing, because a transaction that may have happened records what is here
        self._next = 1
        self.epoch = secrets.token_hex(16)

    def left_behind(self) -> Note | None:
        """Return the note that an earlier process has left, or None."""
        if self._file is None:
            return None
        try:
            return msgspec.json.decode(self._disk.read(self._file), type=Note)
        except (OSError, msgspec.DecodeError):
            return None

    # ---- batches

    def next_ids(self, count: int) -> list[BatchId]:
        """Return the ids of the next `count` batches.  Only `take` uses ids up, and only one thread may take."""
        return [BatchId(self.epoch, self._next + number) for number in range(count)]

    def take(self, batches: Sequence[SealedBatch], resume_points: Mapping[str, int], windows: Collection[str]) -> bool:
        """Take batches, if memory has room and the note can be written, and return whether that was so.

        `windows` are the windows of these batches.  No batch is dropped to make room, because a batch that was sent may
        have arrived, and would then count as lost as well.
        """
        if not self._may_change:
            return False
        with self._turn:
            state = self._state
            size_bytes = sum(len(batch.content) for batch in batches)
            if self._batches and self._size() + size_bytes > self._limit_bytes:
                return False
            before = dict(self._batches), dict(state.resume_points), set(state.windows)
            self._batches |= {batch.id: (entry_of(batch), batch) for batch in batches}
            state.resume_points |= resume_points
            state.windows |= set(windows)
            state.used += len(batches)
            try:
                self._write_note()
            except OSError:
                self._batches, state.resume_points, state.windows = before
                state.used -= len(batches)
                return False
            self._next += len(batches)
            return True

    def add_losses(self, losses: Iterable[Loss], resume_points: Mapping[str, int]) -> bool:
        """Note losses, and the resume points past the lost frames; return False if the stopgap takes nothing.

        The next batch that is taken makes the note durable.  Until then, the sources keep the frames.
        """
        if not self._may_change:
            return False
        with self._turn:
            for loss in losses:
                _add_loss(self._state.losses, loss)
            self._state.resume_points |= resume_points
        return True

    @property
    def _may_change(self) -> bool:
        return self._file is not None and self._limit_bytes > 0 and not self.frozen

    def _size(self) -> int:
        return sum(entry.size_bytes for entry, _ in self._batches.values())

    @property
    def held(self) -> tuple[int, int]:
        """Return the number and the bytes of the batches that wait."""
        with self._turn:
            return len(self._batches), self._size()

    def pending(self, limit: int, *, exclude: Keys, lanes: Sequence[Lane]) -> list[Entry]:
        """Return up to `limit` batches to send, the newest first.  Batches with an id in `exclude` are left out."""
        with self._turn:
            found = [e for e, _ in reversed(self._batches.values()) if e.lane in lanes and e.key not in exclude]
        return found[:limit]

    def content(self, key: BatchId) -> bytes | None:
        """Return the bytes of a batch, or None if the batch does not wait here."""
        found = self._batches.get(key)
        return None if found is None else found[1].content

    def acknowledge(self, stored: Collection[Sealed]) -> tuple[list[int], list[int]]:
        """Remove the batches that arrived; return their numbers, and those under which another batch waits."""
        with self._turn:
            named = {seq for seq, _ in stored}
            found = [entry for key, (entry, _) in self._batches.items() if key.seq in named]
            gone = [entry for entry in found if entry.sealed in stored]
            for entry in gone:
                del self._batches[entry.key]
                self._state.acknowledged += 1
                self._state.acknowledged_samples += entry.samples
            self._renew_note()
            removed = {entry.seq for entry in gone}
            return sorted(removed), sorted({entry.seq for entry in found} - removed)

    def refuse(self, refusals: Mapping[int, Refusal]) -> list[int]:
        """Remove the batches that the receiver refuses by number and digest, and return their numbers."""
        with self._turn:
            refused = {
                key.seq: (Reason.REFUSED_BY_RECEIVER, refusals[key.seq].reason[:MAX_DETAIL_CHARS])
                for key, (entry, _) in self._batches.items()
                if key.seq in refusals and refusals[key.seq].digest == entry.sealed.digest
            }
        return self.lose(self.epoch, refused)

    def lose(self, epoch: str, losses: Mapping[int, tuple[Reason, str]]) -> list[int]:
        """Remove batches, record their loss with reason and detail, and return the numbers of those that waited."""
        gone = []
        with self._turn:
            for seq, (reason, detail) in losses.items():
                key = BatchId(epoch, seq)
                if key in self._batches:
                    gone.append(seq)
                    _add_loss(self._state.losses, loss_of(self._batches.pop(key)[0], reason, detail))
            self._renew_note()
        return gone

    def waiting(self) -> list[SealedBatch]:
        """Return the batches that wait, the oldest first."""
        with self._turn:
            return [batch for _, batch in self._batches.values()]

    # ---- the note

    def note(self) -> Note | None:
        """Return the note that the index must record along with the waiting batches, or None if it would be empty."""
        with self._turn:
            state = self._state
            return self._made_note(state.losses) if state.used or state.losses or state.resume_points else None

    def settle(self) -> None:
        """Forget everything, because the index has recorded it."""
        with self._turn:
            self._batches.clear()
            self._state = _State()
            self.discard_note()

    def discard_note(self) -> None:
        """Remove the note, because the index has recorded what it says.  Raises nothing."""
        if self._file is not None:
            # If the note stays, the token in the index tells that it has been recorded.
            with contextlib.suppress(OSError):
                self._disk.remove(self._file)

    def _made_note(self, losses: Sequence[Loss]) -> Note:
        state = self._state
        return Note(
            state.token,
            state.used,
            state.acknowledged,
            state.acknowledged_samples,
            tuple(losses),
            dict(state.resume_points),
            tuple(sorted(state.windows)),
        )

    def _write_note(self) -> None:
        assert self._file is not None
        losses = list(self._state.losses)
        for entry, _ in self._batches.values():
            _add_loss(losses, loss_of(entry, Reason.MEMORY_FULL))
        temporary = self._file.with_suffix(".tmp")
        self._disk.write_synced(temporary, msgspec.json.encode(self._made_note(losses)), 0o600)
        self._disk.rename(temporary, self._file)

    def _renew_note(self) -> None:
        # An older note records batches as lost that have arrived, and the fleet knows both.
        with contextlib.suppress(OSError):
            if self._state.used:
                self._write_note()


def record(index: Index, note: Note) -> list[Entry]:
    """Record in the index what `note` says, and return the checkpoints that this removes.  Call within a transaction.

    The checkpoints of windows that went through the stopgap must not be sent, because their samples were.
    """
    dropped = index.checkpoints.of(note.windows)
    index.rows.remove(*(entry.row for entry in dropped))
    index.ledger.count(ADOPTED, batches=note.batches)
    index.ledger.count(ACKNOWLEDGED, batches=note.acknowledged, samples=note.acknowledged_samples)
    for loss in note.losses:
        index.ledger.add(replace(loss, epoch=loss.epoch or index.epoch))
    index.resume_points.set(note.resume_points)
    index.set_last_append(note.token)
    return dropped


def _add_loss(losses: list[Loss], loss: Loss) -> None:
    """Add a loss to a list; once the list has MAX_LOSSES records, merge it into one of the same reason, if any."""
    for number in range(len(losses) - 1, -1, -1):
        if adjacent(losses[number], loss) or (len(losses) >= MAX_LOSSES and losses[number].reason is loss.reason):
            losses[number] = merge(losses[number], loss)
            return
    losses.append(loss)
