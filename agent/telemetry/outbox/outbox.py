"""The outbox holds encoded windows between the collector and the spool until the disk takes them.

Invariants: nothing goes to the disk unsealed, and batches keep their order.  If memory is full, the oldest batches are
dropped and counted as lost (`memory_full`).  Checkpoints of open windows are stored only while the disk takes them.
They never wait in memory, because memory holds their window anyway.

The queue consists of parcels.  A parcel holds bodies that are stored together as batches, such as the fragments of a
window.

An append that the disk reports as failed may have happened all the same.  The spool can answer later, by the token of
the append, whether it happened.  Until then, the parcels of the append are in doubt and stay in the queue.  If a parcel
in doubt is dropped because memory is full, it counts as lost only if the append did not happen.

The outbox touches the disk only through the spool.  Only the collector may call `put`, `put_checkpoints` and
`describe`, one at a time; any thread may call the other methods.  Adding an event or a loss never waits for the disk,
nor for another call that does.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from agent.errors import Transient
from agent.formats.up.columns import Clock, Event, Window
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES
from agent.telemetry.losses import Loss
from agent.telemetry.outbox.bridge import pass_windows
from agent.telemetry.outbox.disk_watch import DiskWatch
from agent.telemetry.outbox.loss_book import LossBook
from agent.telemetry.outbox.names import OpenWindow, new_token
from agent.telemetry.outbox.packer import Packer, Parcel
from agent.telemetry.outbox.parcels import Doubt, ParcelQueue
from agent.telemetry.outbox.references import Description, References
from agent.telemetry.outbox.reporter import EVENTS_AT_ONCE, Reporter
from agent.telemetry.outbox.sealer import Sealer
from agent.telemetry.spool.batch import BatchId
from agent.telemetry.spool.spool import Spool
from agent.telemetry.spool.transactions import NotStored

TOGETHER: Final = 16  # parcels in one transaction: windows often close together, but an almost full disk takes few
RETRY_S: Final = 2.0  # time between two tries of a disk that refused, and between two reports of losses
log = structlog.get_logger()


class Outbox:
    """A bounded queue in front of the spool.

    `problem` says why the disk refuses, or is None.  `watch` knows why the spool has too little room.  `samples` and
    `batches` count what this outbox has stored, without checkpoints.  `written_bytes` counts the bytes of batches and
    checkpoints.  `sealer` seals the next batches; a release or a
    renewed certificate replaces it.
    """

    def __init__(
        self,
        spool: Spool,
        sealer: Sealer,
        clock: Callable[[], Clock],
        *,
        batch_max_bytes: int,
        pending_max_bytes: int,
        refer: bool = False,
    ) -> None:
        """Make an empty queue.  If `refer` is true, batches refer to a catalogue that the receiver has confirmed."""
        self._spool = spool
        self._writer = spool.writer
        self.sealer = sealer
        self._clock = clock
        self._packer = Packer(batch_max_bytes - SEAL_OVERHEAD_BYTES)
        self._losses = LossBook(spool)
        self._reporter = Reporter(self._packer, self._losses.add)
        limit_bytes = self._packer.body_max_bytes
        self._references = References(spool.writer, body_max_bytes=limit_bytes) if refer else None
        self._pending_max_bytes = pending_max_bytes
        self._storing = threading.Lock()  # held while the disk works; only its holder takes parcels out
        self._parcels = ParcelQueue()
        self._open: dict[str, OpenWindow] = {}  # by campaign; used by the collector's thread only
        self.problem: str | None = None
        self.watch = DiskWatch(spool.catch_up.shortages)
        self.samples = 0
        self.batches = 0
        self.written_bytes = 0

    async def run(self) -> None:
        """Call `flush` every RETRY_S seconds, until cancelled.

        Each call tries to store what the disk refused before, and reports losses.
        """
        while True:
            await asyncio.to_thread(self.watch.look, self.problem)
            await asyncio.sleep(RETRY_S)
            await asyncio.to_thread(self.flush)

    @property
    def pending_bytes(self) -> int:
        """Return the total size of the bodies that wait in memory to be stored."""
        return self._parcels.size_bytes

    # ---- what comes in

    def add_event(self, event: Event) -> None:
        """Queue `event` for the fleet; the next `flush` stores it.  The call does not wait for the disk."""
        self._reporter.add_event(event)

    def add_loss(self, loss: Loss) -> None:
        """Count a loss; the next `flush` writes it to the ledger.  The call does not wait for the disk."""
        self._losses.add(loss)

    def describe(self, descriptions: Sequence[Description]) -> None:
        """Set the campaigns whose windows will be passed to `put`, and offer their catalogues to the fleet.

        This method must not be called while `put` runs.
        """
        clock = self._clock()
        self._writer.collect([description.campaign for description in descriptions], clock.wall_us)
        if self._references is None:
            return
        bodies = [body for parcel in self._parcels.all() for body in parcel.bodies]
        pending = {body.refers for body in bodies if body.refers is not None}
        try:
            offers = self._references.put_in_force(descriptions, pending=pending, t_us=clock.wall_us, clock=clock)
        except Transient as error:
            log.warning("catalogues_not_offered", reason=str(error))
            return
        for offer in offers:
            self._parcels.enqueue(self._packer.pack_catalogue(offer.catalogue, offer.body, clock))
        self.flush()

    def put(
        self, windows: Iterable[tuple[Window, int]], resume_points: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        """Encode closed windows, each given with its campaign's priority, and store them with everything that waits.

        `resume_points` has, for each campaign, the resume points to store together with the campaign's window.
        """
        for window, priority in windows:
            known = self._open.pop(window.campaign, None)
            open_window = known or OpenWindow()
            if window.samples or window.events:
                catalogue = self._references.of(window) if self._references is not None else None
                named = replace(window, id=open_window.id) if open_window.checkpoints else window
                bodies = self._packer.pack_window(named, priority, open_window.id, catalogue)
                points = (resume_points or {}).get(window.campaign, {})
                checkpoints = None if known is None else known.checkpoints
                self._parcels.enqueue(Parcel(bodies, points, checkpoints, min(open_window.samples, window.samples)))
        self.flush()

    def put_checkpoints(self, windows: Iterable[tuple[Window, int]], resume_points: Mapping[str, int]) -> bool:
        """Store checkpoints of open windows, together with `resume_points`.

        Each of `windows` contains only the samples that no earlier checkpoint of the open window has.  Return False if
        the disk refuses; the next call must then contain these samples again.  When `put` stores the closed window, the
        spool drops the window's checkpoints.
        """
        with self._storing:
            if len(self._parcels):  # the disk refuses, and the waiting parcels come first
                return False
            stored: list[tuple[OpenWindow, int, int]] = []
            batches = []
            try:
                self._settle_doubt()
                self._losses.record()  # before the append, for the reason given in `flush`
                for window, priority in windows:
                    if not (window.samples or window.events):
                        continue
                    open_window = self._open.setdefault(window.campaign, OpenWindow())
                    first = BatchId(open_window.id, open_window.checkpoints + 1)
                    catalogue = self._references.of(window) if self._references is not None else None
                    bodies = self._packer.pack_checkpoint(window, priority, first, catalogue)
                    batches += [self.sealer.seal_body(body.checkpoint or first, body) for body in bodies]
                    stored.append((open_window, len(bodies), window.samples))
                if batches:
                    # If this append reports failure but did happen, the next append replaces these checkpoints.
                    self._writer.append(batches, token=new_token(), resume_points=resume_points)
                    self.written_bytes += sum(len(batch.content) for batch in batches)
            except Transient as error:
                self.problem = str(error)
                return False
            for open_window, count, samples in stored:
                open_window.checkpoints += count
                open_window.samples += samples
            return True

    # ---- what goes out

    def flush(self) -> None:
        """Store all waiting batches, losses and events.

        If the disk refuses, `problem` is set, and everything keeps waiting in memory.  If memory is full, the oldest
        batches are dropped and counted as lost.
        """
        with self._storing:
            try:
                self._settle_doubt()
                # Losses and the windows of the stopgap come first, because they are older than what waits here.
                self._losses.record()
                self._store()
                self._report()
                self._store()
                self._spool.catch_up.keep(new_token())
            except Transient as error:
                self.problem = str(error)
                self._bridge()
                for shed in self._parcels.shed(self._pending_max_bytes):
                    self._losses.give_up(shed)
            else:
                self.problem = None

    def delivered(self) -> bool:
        """Store everything that waits, and return whether the outbox and the spool have nothing left to deliver.

        Return False while the disk refuses.
        """
        self.flush()
        if self.problem is not None:
            return False
        try:
            counts = self._spool.counts()
        except Transient:
            return False
        return not counts.batches and not counts.unreported

    def _store(self) -> None:
        while len(self._parcels):
            parcels = self._parcels.first(TOGETHER)
            bodies = [body for parcel in parcels for body in parcel.bodies]
            ids = self._writer.next_ids(len(bodies))
            batches = [self.sealer.seal_body(id_, body) for id_, body in zip(ids, bodies, strict=True)]
            points = {source: point for parcel in parcels for source, point in parcel.resume_points.items()}
            self._parcels.doubt = Doubt(new_token(), len(parcels))
            try:
                self._writer.append(batches, token=self._parcels.doubt.token, resume_points=points)
            except NotStored:
                self._parcels.doubt = None
                raise
            self.written_bytes += sum(len(batch.content) for batch in batches)
            self._confirm(self._parcels.doubt)

    def _bridge(self) -> None:
        """Pass the waiting windows to the stopgap, from which they are sent while the disk refuses.

        While the link is down, they stay here, so that the sources keep their frames.  Nothing is passed on while an
        append is in doubt, because a window in doubt may be on the disk already, and later windows must not move the
        resume points past it.
        """
        if not self._spool.reader.is_read:
            return
        with contextlib.suppress(Transient):
            self._settle_doubt()
        if self._parcels.doubt is None and self._losses.pass_on():
            for parcel in pass_windows(self._parcels, self._spool.stopgap, self.sealer):
                self.batches += len(parcel.bodies)
                self.samples += parcel.samples
                self._spool.reader.notify()

    def _confirm(self, stored: Doubt) -> None:
        """Remove the parcels of an append that happened, and count their batches and samples as stored."""
        self._parcels.doubt = None
        for _ in range(stored.queued):
            parcel = self._parcels.drop_first()
            self.batches += len(parcel.bodies)
            self.samples += parcel.samples
        self.batches += sum(shed.batches for shed in stored.shed)
        self.samples += sum(shed.samples for shed in stored.shed)

    def _settle_doubt(self) -> None:
        """Find out whether the append in doubt happened.  Raises Transient while the disk refuses.

        If the append did not happen, its parcels that were dropped from memory count as lost.  The other parcels of the
        append are still in the queue.
        """
        doubt = self._parcels.doubt
        if doubt is None:
            return
        if self._writer.stored(doubt.token):
            self._confirm(doubt)
            return
        self._parcels.doubt = None
        for shed in doubt.shed:
            self._losses.give_up(shed)

    def _report(self) -> None:
        """Queue pending events and unreported losses as parcels of events."""
        losses = self._writer.unreported_losses(EVENTS_AT_ONCE)
        for parcel in self._reporter.pack(losses, self._clock()):
            self._parcels.enqueue(parcel)
