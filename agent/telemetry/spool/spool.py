"""The spool: sealed batches wait here, durably, until they are acknowledged.  Touches the world.

The spool sees sealed bytes only; no plaintext telemetry reaches this room or the disk below it.  It has three users and
a side for each: `writer` for the outbox, `reader` for the uplink, and the class `Spool` itself for the
runtime of the agent.

On disk, below the spool's folder (agent.telemetry.spool.names has the names):

    lock                         held (flock) by the one process that uses the spool
    index.sqlite3 (-wal, -shm)   what is stored, and the loss ledger: agent.telemetry.spool.schema
    batches/<epoch>/…            one file for each sealed batch
    checkpoints/…                one file for each checkpoint
    catalogues/…                 copies of batches that carried catalogues; at most CATALOGUES
    quarantine/                  what recovery or reading found damaged; the newest QUARANTINE files

Identity.  `epoch` (32 hex digits) is made with the index; `seq` counts from 1 within it.  A number is used up by the
transaction that stores its batch, and a batch can be sent only after that, so no number ever names two contents.

Append.  The files are made durable first (write and fsync of each, then fsync of the folder).  Then one transaction
adds the rows, uses up the numbers, marks the loss records that the batches carry as reported in them, and sets the
resume points of the sources.  It all happens or nothing does: a file whose transaction did not commit is an orphan.
Batches that must go for quota, age or free space are evicted before, in a transaction of their own, which writes the
ledger.

Checkpoints.  What an open window has collected is stored now and then, so that a crash costs a few seconds and not a
whole window.  A checkpoint is numbered in its window, and its window's id is the epoch in its header, so it uses up no
number of the spool's epoch.  It is not sent while its window may still close.  The transaction that stores the window
drops the window's checkpoints.  After a crash, the checkpoints of a window that never closed are sent as they are, as
batches of that small epoch, and the window is not sent.  So the receiver never gets a checkpoint and its window both.
Where limits demand the bytes of a checkpoint its row stays (withdrawn), because nothing is lost while the window is in
memory.

Catalogues.  A batch that carries a catalogue is stored like any other.  A copy of it is kept beyond acknowledgement,
quota and age, until no stored batch refers to it and no campaign uses it.  Whenever the receiver misses the catalogue
the copy is sent again, and to the receiver it is a duplicate that it learns from.  For batches that were taken in
without an index the catalogue is not known, so every catalogue stays until these batches are gone.

Remove (acknowledged, refused, evicted).  One transaction removes the row and settles the loss records that the batch
had reported: they arrived with the batch, or wait again.  The file is unlinked after; if that does not happen, it is
an orphan.  An unlink waits for the file system's journal, so the files of acknowledged batches are left to `sweep`,
which no other call waits for.  It is called when the link has nothing to carry, or as soon as the space is needed.

Run.  `begin_run` records that an agent collects now, and `end_run` that everything it collected is stored.  If
`end_run` is missing, the next `begin_run` records the loss `open_window` for each campaign: frames after the time up to
which the campaign is durable are lost, unless a source still holds them.

Failures.  A full or read-only disk and I/O errors raise Transient.  Whether a failed append happened all the same is
known by its token (agent.telemetry.spool.transactions).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from agent.formats.up.losses import Reason
from agent.system import durable
from agent.telemetry.losses import MAX_DETAIL_CHARS, Loss
from agent.telemetry.spool.account import Counts, counts
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.reader import Reader
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.room import Room
from agent.telemetry.spool.schema import Connect, connect
from agent.telemetry.spool.transactions import Transactions
from agent.telemetry.spool.writer import Writer


class Spool:
    """The keeper's side.  Methods block; any thread may call them, and one runs at a time."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        now_s: Callable[[], float] = time.time,
        disk: durable.Disk | None = None,
        open_database: Connect = connect,
    ) -> None:
        """Open the spool in `folder`, creating it, and recover what is there.

        Raises Transient where the disk refuses, Permanent where another process uses the spool.
        """
        self._folder = SpoolFolder(folder, disk or durable.current())
        self._transactions = Transactions(self._folder, now_s=now_s, open_database=open_database)
        room = Room(self._transactions, self._folder, limits, now_s)
        self.reader = Reader(self._transactions, self._folder, room, now_s=now_s)
        self.writer = Writer(self._transactions, self._folder, room, now_s=now_s, notify=self.reader.notify)
        try:
            self._transactions.recover()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the index and let another process have the spool."""
        self._transactions.close()

    @property
    def epoch(self) -> str:
        """The life of this spool; the same until its index is lost."""
        with self._transactions.reading() as index:
            return index.epoch

    def counts(self) -> Counts:
        """Return the account at this moment.  Raises Transient."""
        with self._transactions.reading() as index:
            return counts(index)

    # ---- runs

    def begin_run(self, now_us: int, *, lossy: str) -> None:
        """Note that an agent collects from now on; `end_run` says when everything is stored.

        Where the run before has not ended so, `open_window` goes to the ledger.  `lossy` names the buses whose frames
        were in that process's memory alone; where there is none, nothing was lost.  Raises Transient.
        """
        with self._transactions.writing() as index:
            since_us, reached = index.collecting_since_us(), index.reached.all()
            if since_us is not None and lossy:
                for campaign, t_us in sorted((reached or {"": since_us}).items()):
                    loss = Loss(Reason.OPEN_WINDOW, campaign=campaign, detail=lossy[:MAX_DETAIL_CHARS])
                    index.ledger.add(replace(loss, epoch=index.epoch, first_t_us=t_us, last_t_us=max(t_us, now_us)))
            index.set_collecting(now_us)
            index.reached.clear()

    def end_run(self) -> None:
        """Note that everything that was collected is stored.  Raises Transient."""
        with self._transactions.writing() as index:
            index.set_collecting(None)
            index.reached.clear()

    # ---- sources

    def resume_points(self) -> dict[str, int]:
        """Return how far each source is durable, as appends have set it.  Raises Transient."""
        with self._transactions.reading() as index:
            return index.resume_points.all()

    def forget_resume_points(self, names: Iterable[str]) -> None:
        """Let these sources (the part of the keys before the colon) begin anew.  Raises Transient."""
        ended = tuple(f"{name}:" for name in names)
        with self._transactions.writing() as index:
            points = index.resume_points.all()
            index.resume_points.replace({key: point for key, point in points.items() if not key.startswith(ended)})
