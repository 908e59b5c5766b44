"""The outbox: from encoded bodies to sealed batches in the spool, with bounded memory while the disk refuses them.

Invariants: nothing goes to the disk unsealed; order is kept; what memory cannot hold is dropped oldest first and
counted (`memory_full`), never silently; each loss in the spool's ledger is told in one batch of events, and under the
same id in another only where that one is lost.
Parts of windows that are still open are stored while the disk takes them, and never wait in memory, where their window
is anyway.
Touches the world through the spool only.  Any thread may call the methods; `put` and `flush` block on the disk, and
what is added meanwhile does not wait for them.
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.codec import MAX_REPLACES, encode_parts
from agent.formats.up.columns import Clock, Event, Window
from agent.formats.up.recipient import RecipientPublicKey
from agent.formats.up.seal import SEAL_OVERHEAD_BYTES, Header, seal
from agent.telemetry.losses import Loss, LossCounter, Reason, to_event
from agent.telemetry.outbox.references import Description, References
from agent.telemetry.spool.spool import Draft, Spool, Superseded

EVENTS_PRIORITY: Final = 0
EVENTS_AT_ONCE: Final = 256  # events and losses in one batch: a few kilobytes
EVENTS_HELD: Final = 4_096  # events in memory; as many receipts as nobody sends in a year
TOGETHER: Final = 16  # parcels in one transaction: campaigns that close at one time; a disk short of space takes fewer
RETRY_S: Final = 2.0  # how often a disk that refused is tried again, and losses are told
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals a body under a sequence number: what the vehicle is, its key, and the fleet's key."""

    vehicle: str
    device_key: ec.EllipticCurvePrivateKey
    recipient: RecipientPublicKey
    now_us: Callable[[], int]

    def draft(
        self,
        epoch: Callable[[], str],
        lane: Lane,
        priority: int,
        window: Window,
        body: bytes,
        *,
        samples: int,
        carries: bytes | None = None,
        refers: bytes | None = None,
        provisional: bool = False,
        replaces: tuple[tuple[str, int], ...] = (),
        pieces_before: int = 0,
        pieces_after: int = 0,
    ) -> Draft:
        """What the spool stores for `body`, one of the bodies of `window`; `epoch` is asked when it is sealed.

        The rest: see Draft and Header.
        """

        def sealed(seq: int) -> bytes:
            suite, key_id = self.recipient.suite, self.recipient.key_id
            now_us = self.now_us()
            header = Header(self.vehicle, epoch(), seq, lane, key_id, suite, now_us, pieces_before, pieces_after)
            return seal(header, body, self.device_key, self.recipient)

        return Draft(
            lane,
            priority,
            window.campaign,
            sealed,
            samples=samples,
            first_t_us=window.start_us,
            last_t_us=window.end_us,
            carries=carries,
            refers=refers,
            provisional=provisional,
            replaces=replaces,
        )


@dataclass(slots=True)
class _Parts:
    """Of an open window, what is durable: the names of the provisional batches, and how many samples they hold."""

    keys: list[tuple[str, int]] = field(default_factory=list)
    samples: int = 0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Batches that are stored together or not at all, the losses that the first of them tells of, how far the sources
    are durable with them, and how many of their samples are in the spool already, in batches that they replace."""

    drafts: tuple[Draft, ...]
    size_bytes: int
    reports: tuple[int, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)
    stored_samples: int = 0

    @property
    def samples(self) -> int:
        """In all of its batches."""
        return sum(draft.samples for draft in self.drafts)


class Outbox:
    """See the module's text.  `problem` says why the disk refuses, or is None."""

    def __init__(
        self,
        spool: Spool,
        sealer: Sealer,
        clock: Callable[[], Clock],
        *,
        batch_max_bytes: int,
        pending_max_bytes: int,
        refer: bool = False,
        parts_max: int = MAX_REPLACES,
    ) -> None:
        """`refer`: describe signals by reference where the receiver has confirmed that it can read it.

        `parts_max`: batches of an open window, so that its own can name them all.
        """
        self._spool = spool
        self._sealer = sealer
        self._clock = clock
        self._body_max_bytes = batch_max_bytes - SEAL_OVERHEAD_BYTES
        self._references = References(spool, body_max_bytes=self._body_max_bytes) if refer else None
        self._pending_max_bytes = pending_max_bytes
        self._parts_max = parts_max
        self._storing = threading.Lock()  # held while the disk works; only its holder takes parcels out
        self._turn = threading.Lock()  # of what follows; never held while the disk works
        self._parcels: deque[_Parcel] = deque()
        self._events: deque[Event] = deque()
        self._losses = LossCounter()
        self._parts: dict[str, _Parts] = {}  # by campaign; of the collector's thread
        self._orphans: list[tuple[str, int]] = []  # provisional batches whose window memory could not hold
        self.pending_bytes = 0
        """Bytes of bodies in memory that the disk has not taken yet."""
        self.problem: str | None = None
        self.samples = 0
        self.batches = 0

    async def run(self) -> None:
        """Try a disk that refused again, and tell losses, every RETRY_S.  Runs until cancelled."""
        refused = False
        while True:
            await asyncio.sleep(RETRY_S)
            await asyncio.to_thread(self.flush)
            if refused != (self.problem is not None):
                refused = not refused
                if refused:
                    log.error("disk_refuses", reason=self.problem, limit_bytes=self._pending_max_bytes)
                else:
                    log.info("disk_accepts_again")

    def add_event(self, event: Event) -> None:
        """Tell the fleet of `event` with the next `flush`.  Does not block on the disk."""
        with self._turn:
            if len(self._events) >= EVENTS_HELD:
                oldest = self._events.popleft()
                self._losses.add(Loss(Reason.MEMORY_FULL, lane=Lane.EVENTS, detail=oldest.kind, first_t_us=oldest.t_us))
            self._events.append(event)

    def add_loss(self, loss: Loss) -> None:
        """Count a loss; it reaches the ledger with the next `flush`.  Does not block on the disk."""
        with self._turn:
            self._losses.add(loss)

    def describe(self, descriptions: Sequence[Description]) -> None:
        """The windows that come from now on are of these campaigns.  Not while `put` is at work."""
        if self._references is None:
            return
        with self._turn:
            pending = {draft.refers for parcel in self._parcels for draft in parcel.drafts if draft.refers is not None}
        clock = self._clock()
        try:
            offers = self._references.put_in_force(descriptions, pending=pending, t_us=clock.wall_us, clock=clock)
        except Transient as error:
            log.warning("catalogues_not_offered", reason=str(error))
            return
        for offer in offers:
            catalogue = offer.catalogue
            window = Window(catalogue.campaign, catalogue.revision, clock.wall_us, clock.wall_us + 1, clock, ())
            draft = self._sealer.draft(
                self._epoch, Lane.EVENTS, EVENTS_PRIORITY, window, offer.body, samples=0, carries=catalogue.digest
            )
            self._append(_Parcel((draft,), len(offer.body)))
        self.flush()

    def put(
        self, windows: Iterable[tuple[Window, int]], positions: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        """Encode closed windows (with their campaign's priority), and store them with all that waits.

        `positions`: by campaign, how far its sources are durable once its window is; stored with the window.
        """
        for window, priority in windows:
            parts = self._parts.pop(window.campaign, _Parts())
            if window.samples:
                where = (positions or {}).get(window.campaign, {})
                self._append(self._parcel(window, Lane.LIVE, priority, positions=where, parts=parts))
        self.flush()

    def put_parts(self, windows: Iterable[tuple[Window, int]], positions: Mapping[str, int]) -> bool:
        """Store parts of windows that are still open, and `positions` with them; False where the disk refuses, or a
        window would be of too many parts.

        What `put` gets of these campaigns next replaces them.
        """
        with self._storing:
            if self._parcels:  # the disk refuses, and what waits comes first
                return False
            parcels = [
                self._parcel(window, Lane.LIVE, priority, provisional=True)
                for window, priority in windows
                if window.samples
            ]
            drafts = [draft for parcel in parcels for draft in parcel.drafts]
            for campaign, batches in Counter(draft.campaign for draft in drafts).items():
                if len(self._parts.get(campaign, _Parts()).keys) + batches > self._parts_max:
                    return False
            try:
                self._record()  # see flush
                epoch = self._epoch()
                seqs = self._spool.append_all(drafts, positions=positions) if drafts else []
            except Transient as error:
                self.problem = str(error)
                return False
            for seq, draft in zip(seqs, drafts, strict=True):
                parts = self._parts.setdefault(draft.campaign, _Parts())
                parts.keys.append((epoch, seq))
                parts.samples += draft.samples
            return True

    def flush(self) -> None:
        """Store whatever waits: batches, losses, events.  Where the disk refuses, they stay, and `problem` says why."""
        with self._storing:
            try:
                self._record()  # first: what is stored next moves the positions over what was lost
                self._promote()
                self._store()
                self._tell()
                self._store()
            except Transient as error:
                self.problem = str(error)
                self._shed()
            else:
                self.problem = None

    def delivered(self) -> bool:
        """Store what waits; whether nothing is left, here or in the spool.  False while the disk refuses."""
        self.flush()
        if self.problem is not None:
            return False
        try:
            counts = self._spool.counts()
        except Transient:
            return False
        return not counts.batches and not counts.unreported

    def _parcel(
        self,
        window: Window,
        lane: Lane,
        priority: int,
        *,
        reports: Sequence[int] = (),
        positions: Mapping[str, int] | None = None,
        parts: _Parts | None = None,
        provisional: bool = False,
    ) -> _Parcel:
        """`parts`: those of `window` that are in the spool already."""
        parts = parts or _Parts()
        if parts.keys:
            window = replace(window, replaces=tuple(seq for _, seq in parts.keys))
        catalogue = self._references.of(window) if self._references is not None and window.groups else None
        pieces = list(encode_parts(window, self._body_max_bytes, catalogue))
        refers = None if catalogue is None else catalogue.digest
        drafts = tuple(
            self._sealer.draft(
                self._epoch,
                lane,
                priority,
                piece,
                body,
                samples=piece.samples,
                refers=refers,
                provisional=provisional,
                replaces=() if number else tuple(parts.keys),
                pieces_before=number if parts.keys else 0,
                pieces_after=len(pieces) - 1 - number if parts.keys else 0,
            )
            for number, (piece, body) in enumerate(pieces)
        )
        stored_samples = min(parts.samples, window.samples) if parts.samples else 0
        size_bytes = sum(len(body) for _, body in pieces)
        return _Parcel(drafts, size_bytes, tuple(reports), positions or {}, stored_samples)

    def _append(self, parcel: _Parcel) -> None:
        with self._turn:
            self._parcels.append(parcel)
            self.pending_bytes += parcel.size_bytes

    def _epoch(self) -> str:
        return self._spool.epoch

    def _store(self) -> None:
        together = TOGETHER
        while self._parcels:
            parcels = self._first(together)
            drafts = [draft for parcel in parcels for draft in parcel.drafts]
            positions = {name: place for parcel in parcels for name, place in parcel.positions.items()}
            try:
                self._spool.append_all(drafts, reports=parcels[0].reports, positions=positions)
            except Superseded:  # the parts are sent as they are; what came after them goes with the index
                if len(parcels) > 1:
                    together = 1  # to see of which parcel
                    continue
                self._drop_first()
                self.add_loss(_loss(parcels[0], Reason.INDEX_DAMAGED))
                continue
            for parcel in parcels:
                self._drop_first()
                self.batches += len(parcel.drafts)
                self.samples += parcel.samples

    def _first(self, limit: int) -> list[_Parcel]:
        """Those that are stored next, in one transaction; only the first of them may tell of losses."""
        first, *others = islice(self._parcels, limit)
        return [first, *takewhile(lambda parcel: not parcel.reports, others)]

    def _promote(self) -> None:
        """Nothing replaces parts any more whose window is lost: they are sent."""
        if self._orphans:
            self._spool.promote(self._orphans)
            self._orphans = []

    def _drop_first(self) -> _Parcel:
        with self._turn:
            parcel = self._parcels.popleft()
            self.pending_bytes -= parcel.size_bytes
            return parcel

    def _record(self) -> None:
        """Write what was counted into the ledger."""
        with self._turn:
            counted = self._losses.take()
        try:
            if counted:
                self._spool.record_losses(counted)
        except Transient:
            with self._turn:
                self._losses.put_back(counted)
            raise

    def _tell(self) -> None:
        """Put what happened and what was lost into a batch of events, or as many as it takes."""
        losses = self._spool.unreported_losses(EVENTS_AT_ONCE)
        if not losses and not self._events:
            return
        clock = self._clock()
        told: list[tuple[int | None, Event]] = [(id_, to_event(id_, loss, clock.wall_us)) for id_, loss in losses]
        with self._turn:
            while self._events and len(told) < EVENTS_AT_ONCE:
                told.append((None, self._events.popleft()))
        for parcel in self._telling(told, clock):
            self._append(parcel)

    def _telling(self, told: Sequence[tuple[int | None, Event]], clock: Clock) -> Iterator[_Parcel]:
        """Parcels of one batch each: whether a loss is told depends on the batch that it stands in alone."""
        times = [event.t_us for _, event in told]
        window = Window("", "", min(times), max(times) + 1, clock, (), tuple(event for _, event in told))
        reports = [id_ for id_, _ in told if id_ is not None]
        parcel = self._parcel(window, Lane.EVENTS, EVENTS_PRIORITY, reports=reports)
        if len(parcel.drafts) == 1 or len(told) == 1:
            yield parcel
            return
        middle = len(told) // 2
        yield from self._telling(told[:middle], clock)
        yield from self._telling(told[middle:], clock)

    def _shed(self) -> None:
        """Keep memory within its limit: the oldest go, and are counted."""
        while len(self._parcels) > 1 and self.pending_bytes > self._pending_max_bytes:
            parcel = self._drop_first()
            self._orphans += [key for draft in parcel.drafts for key in draft.replaces]
            self.add_loss(_loss(parcel, Reason.MEMORY_FULL))


def _loss(parcel: _Parcel, reason: Reason) -> Loss:
    """Of all that the spool does not have in parts."""
    first, last = parcel.drafts[0], parcel.drafts[-1]
    return Loss(
        reason,
        lane=first.lane,
        campaign=first.campaign,
        samples=parcel.samples - parcel.stored_samples,
        first_t_us=first.first_t_us,
        last_t_us=last.last_t_us,
    )
