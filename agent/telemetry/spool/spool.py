"""The spool stores sealed batches durably until they are acknowledged.

The spool sees sealed bytes only, so no plaintext telemetry reaches the disk.  It has three users, and an interface for
each.  The outbox uses `writer`, the uplink uses `reader`, and the agent's runtime uses the class `Spool` itself.

The spool's folder contains (agent.telemetry.spool.names specifies the names):

    lock                         held (flock) by the one process that uses the spool
    index.sqlite3 (-wal, -shm)   what is stored, and the loss ledger: agent.telemetry.spool.schema
    listening.json               which rings capture before a run has begun: agent.telemetry.spool.listening
    batches/<epoch>/…            one file for each sealed batch
    checkpoints/…                one file for each checkpoint
    catalogues/…                 copies of batches that carried catalogues; at most CATALOGUES
    quarantine/                  files that recovery or reading found damaged; the newest QUARANTINE

Identity.  `epoch` (32 hex digits) is made with the index, and `seq` counts from 1 within the epoch.  The transaction
that stores a batch uses up the batch's number.  A batch is sent only after this transaction.  So the fleet never gets
two contents under one number, unless the disk is put back to an earlier state or copied.  The spool cannot notice that.
An acknowledgement therefore names the digest of a batch as well, and removes no batch with another digest.

Append.  The files are made durable first (write and fsync of each file, then fsync of the folder).  Then one
transaction adds the rows, uses up the numbers, marks the loss records in the batches as reported, and sets the resume
points of the sources.  All of this happens, or nothing does.  A file whose transaction did not commit is deleted.
Before the append, batches are evicted if the quota, the age limit or the free space demands it.  The eviction is a
transaction of its own, which also records the losses in the ledger.  No step of the wall clock makes a batch older
(agent.telemetry.spool.boots).

Memory.  A batch for which the limits have no room, even after evictions, is held in memory
(agent.telemetry.spool.memory). Its row is stored as usual, so the batch is sent and acknowledged like any other.  An
online vehicle therefore delivers its fresh data without the disk.  When the disk has room again, `Writer.keep` moves
held batches to it.

Checkpoints.  The samples of an open window are stored every few seconds, so a crash does not cost the whole window.
A checkpoint is numbered within its window, and the epoch in its header is the window's id.  So a checkpoint uses up
no number of the spool's epoch.  It is not sent while its window may still close.  The transaction that stores the
window drops the window's checkpoints.  If the agent crashes while the window is open, the checkpoints are sent as
ordinary batches under the window's id, and the window is not sent.  So the receiver gets a window or its checkpoints,
but never both, unless the disk is put back or copied.  If the limits demand the space of a checkpoint, its file is
removed, and its row stays, marked as withdrawn.  No data is lost yet, because memory still has the window.  If the
window never closes, the withdrawn checkpoint is recorded as lost.

Catalogues.  A batch that carries a catalogue is stored like any other.  A copy of the batch is kept until no stored
batch refers to the catalogue and no campaign uses it.  Acknowledgement, quota and age do not remove the copy.  When the
receiver lacks the catalogue, the copy is sent again.  The receiver treats it as a duplicate batch, and learns the
catalogue from it.  If the index was lost, the catalogues of the adopted batches are unknown.  Every catalogue then
stays until these batches are gone.

Removal (after an acknowledgement, a refusal or an eviction).  One transaction removes the row.  It also settles the
loss records in the batch: they have arrived with the batch, or they wait again.  The file is unlinked afterwards; if
the process ends in between, recovery deletes the file.  An unlink waits for the file system's journal, and an
acknowledgement must not wait.  The files of acknowledged batches are therefore left to `sweep`.  `sweep` is called when
the link has nothing to carry, or as soon as space is needed.

Run.  `begin_run` records that an agent collects, and `end_run` records that everything it collected is stored.  If a
run ends without `end_run`, the next `begin_run` records the loss `open_window` for each campaign and each bus whose
frames are not held any more (agent.telemetry.spool.runs).

Failures.  A full or read-only disk and I/O errors raise Transient.  The token of a failed append shows whether the
append happened all the same (agent.telemetry.spool.transactions).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from agent.formats.up.columns import Clock
from agent.system import durable
from agent.telemetry.clock import MachineClock
from agent.telemetry.spool import runs
from agent.telemetry.spool.account import Counts, counts
from agent.telemetry.spool.catch_up import CatchUp
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.listening import ListeningNote
from agent.telemetry.spool.memory import Memory
from agent.telemetry.spool.reader import Reader
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.room import Room
from agent.telemetry.spool.schema import Connect, connect
from agent.telemetry.spool.stopgap import Stopgap
from agent.telemetry.spool.transactions import Transactions
from agent.telemetry.spool.writer import Writer


class Spool:
    """The spool as the agent's runtime uses it.  Methods block; any thread may call them, and one runs at a time."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        clock: Callable[[], Clock] | None = None,
        disk: durable.Disk | None = None,
        open_database: Connect = connect,
        runtime_folder: Path | None = None,
    ) -> None:
        """Open the spool in `folder`, create it if it is missing, and recover what is there.

        While the disk refuses, the stopgap keeps a note in `runtime_folder`; without this folder there is no stopgap.
        `clock` reads the clocks of the machine; the default is MachineClock.  Raises Transient if the disk refuses, and
        Permanent if another process uses the spool.
        """
        clock = clock or MachineClock().read
        disk = disk or durable.current()
        self._folder = SpoolFolder(folder, disk)
        self._listening = ListeningNote(folder, disk)
        self._memory = Memory(limits.memory_bytes)
        self.stopgap = Stopgap(runtime_folder, limits.memory_bytes)
        self._transactions = Transactions(
            self._folder, self._memory, self.stopgap, clock=clock, open_database=open_database
        )
        self._room = Room(self._transactions, self._folder, limits, clock)
        self.reader = Reader(self._transactions, self._folder, self._room, clock=clock)
        self.catch_up = CatchUp(self._transactions, self._folder, self._room, clock=clock)
        self.writer = Writer(self._transactions, self._folder, self._room, clock=clock, notify=self.reader.notify)
        try:
            self._transactions.recover()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the index, so that another process can use the spool."""
        self._transactions.close()

    @property
    def epoch(self) -> str:
        """The epoch of the spool, which stays the same until the index is lost or damaged."""
        with self._transactions.reading() as index:
            return index.epoch

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next batch on.  This method does not wait for the disk."""
        self._room.set_limits(limits)

    def counts(self) -> Counts:
        """Return how many batches are acknowledged, waiting and lost at this moment.  Raises Transient."""
        with self._transactions.reading() as index:
            found = counts(index)
        batches, size_bytes = self.stopgap.held
        return replace(found, in_memory=(len(self._memory) + batches, self._memory.size_bytes + size_bytes))

    # ---- runs

    def begin_run(self, buses: Mapping[str, str], *, since_us: int, now_us: int, trusted: bool) -> None:
        """Record that an agent collects from `buses`, until `end_run` records that everything is stored.

        `buses` has the name of the ring or log that holds the frames of each bus, or "".  The agent has captured frames
        since `since_us`.  `trusted` says whether the network or GNSS has set the clock that shows `now_us`.  What
        the previous run has lost goes to the ledger, and so does what rings have captured that no run has read (see
        agent.telemetry.spool.listening).  Raises Transient.
        """
        try:
            listening = self._listening.read()
        except OSError as error:
            raise self._folder.refuses(error) from error
        with self._transactions.writing() as index:
            runs.begin_run(index, since_us=since_us, now_us=now_us, trusted=trusted, buses=buses, listening=listening)
        # From here on, the run itself says what may be missing.
        self._listening.remove()

    def end_run(self, *, captured: Mapping[str, str] | None = None, since_us: int | None = None) -> None:
        """Record that everything that was collected is stored.

        If another run follows in the same process, `captured` has the rings that go on capturing for it, by bus, and
        `since_us` is since when they hold frames that are not stored.  Raises Transient.
        """
        with self._transactions.writing() as index:
            runs.end_run(index, captured=captured or {}, since_us=since_us if captured else None)
        # An agent that was started by mistake and found the spool in use may have left a note.
        self._listening.remove()

    # ---- sources

    def resume_points(self) -> dict[str, int]:
        """Return the resume points that appends have set, by key (`<source>:<campaign>`).  Raises Transient."""
        with self._transactions.reading() as index:
            return index.resume_points.all()

    def forget_resume_points(self, names: Iterable[str]) -> None:
        """Remove the resume points of the sources `names`, so that these sources start over.  Raises Transient."""
        ended = tuple(f"{name}:" for name in names)
        with self._transactions.writing() as index:
            points = index.resume_points.all()
            index.resume_points.replace({key: point for key, point in points.items() if not key.startswith(ended)})
