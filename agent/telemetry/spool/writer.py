"""The writer's side of the spool: storing sealed batches and checkpoints, and recording losses.  Touches the world.

The outbox is the one writer.  It asks which ids are next, seals bodies under them, and appends the sealed batches; the
append verifies that the ids are still next.  So nothing is sealed while the spool is locked.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Entry, SealedBatch, entry_of, loss_of
from agent.telemetry.spool.catalogues import Carrier, Verdict
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.recovery import promote
from agent.telemetry.spool.room import Room
from agent.telemetry.spool.transactions import Transactions


class OutdatedIds(Transient):
    """The ids that batches were sealed under are not the next ones any more: seal them again."""


class Writer:
    """The methods that the outbox uses.  Methods block; any thread may call them, and one runs at a time."""

    def __init__(
        self,
        transactions: Transactions,
        folder: SpoolFolder,
        room: Room,
        *,
        now_s: Callable[[], float],
        notify: Callable[[], None],
    ) -> None:
        """`notify` is called after each append of batches that can be sent, in the thread that appended."""
        self._transactions = transactions
        self._folder = folder
        self._room = room
        self._now_s = now_s
        self._notify = notify

    # ---- storing

    def next_ids(self, count: int) -> list[BatchId]:
        """Return the ids of the next `count` batches.  An append uses them up; asking does not.  Raises Transient."""
        with self._transactions.reading() as index:
            return [BatchId(index.epoch, index.next_seq + number) for number in range(count)]

    def append(
        self, batches: Sequence[SealedBatch], *, token: str, resume_points: Mapping[str, int] | None = None
    ) -> None:
        """Store batches, and set resume points with them, all or nothing.

        When it returns, each batch is durable, or, where the limits have no room for it, its loss is.  The checkpoints
        of a window are dropped with the append that brings the window's fragments.  A checkpoint replaces the one that
        an earlier, failed append stored under its id, and those after it.

        `token` names the append, and each append has another one.  If the call raises, the append may or may not have
        happened: ask `stored`, or call again with the same token, which does nothing if it happened.

        Raises Transient if the disk refuses, OutdatedIds if the ids are not the next ones.
        """
        assert token
        _check(batches)
        with self._transactions.turn:
            if not self._transactions.stored(token):
                self._store(batches, token, resume_points or {})
        if not all(batch.waits for batch in batches):
            self._notify()

    def _store(self, batches: Sequence[SealedBatch], token: str, resume_points: Mapping[str, int]) -> None:
        with self._transactions.reading() as index:
            ordinary = [batch for batch in batches if not batch.waits]
            if [batch.id for batch in ordinary] != self.next_ids(len(ordinary)):
                raise OutdatedIds("the spool gives out other ids by now: seal again")
            dropped = _dropped(index, batches)
            entries = [entry_of(batch) for batch in batches]
            refused = self._room.make(index, entries, dropped)
        with self._transactions.reading() as index:
            before = index.catalogues.all()
            contents = {
                self._folder.path(entry.name): batch.content
                for entry, batch in zip(entries, batches, strict=True)
                if entry.key not in refused
            }
            carriers = [
                (Carrier(batch.carries, *batch.id, None, entry.digest), batch)
                for entry, batch in zip(entries, batches, strict=True)
                if batch.carries is not None and entry.key not in refused
            ]
            contents |= {self._folder.carrier_path(*_place(carrier)): batch.content for carrier, batch in carriers}
        self._transactions.open_windows |= {batch.id.epoch for batch in batches if batch.waits}
        windows = frozenset(batch.fragment.window for batch in batches if batch.fragment is not None)
        with self._transactions.storing(token, contents, closes=windows, dropped=dropped) as index:
            index.set_next_seq(index.next_seq + len(ordinary))
            index.rows.remove(*(entry.row for entry in dropped))
            for entry, batch in zip(entries, batches, strict=True):
                self._add(index, entry, refused.get(entry.key), batch.reports)
                if batch.lane is not Lane.EVENTS and batch.last_t_us is not None:
                    index.reached.set(batch.campaign, batch.last_t_us)
            for carrier, _ in carriers:
                index.catalogues.keep(carrier)
            index.resume_points.set(resume_points)
        outdated = [before[carrier.digest] for carrier, _ in carriers if carrier.digest in before]
        self._folder.remove(self._folder.carrier_path(*_place(carrier)) for carrier in outdated)
        if refused:
            # A window that lacks a fragment must not be taken for one that was never sent (see recovery).
            self._folder.settle_checkpoints()

    def _add(self, index: Index, entry: Entry, refused: Reason | None, reports: Collection[int]) -> None:
        """Store a row, or a loss record that explains its number if the limits had no room for the batch."""
        if refused is None:
            index.ledger.report(reports, index.rows.add(entry, self._now_s()))
        elif entry.waits:
            index.rows.add(replace(entry, size_bytes=0, withdrawn=refused), self._now_s())
        else:
            index.ledger.add(loss_of(entry, refused))

    def stored(self, token: str) -> bool:
        """Return whether the last append was committed although it raised.  Raises Transient."""
        return self._transactions.stored(token)

    def promote(self, windows: Collection[str]) -> None:
        """Send the checkpoints of windows that will not be stored.  Raises Transient."""
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.checkpoints.of(windows)
            if found:
                with self._transactions.writing() as index:
                    promote(index, found)
            self._transactions.open_windows -= set(windows)
        self._notify()

    # ---- losses

    def record_losses(self, losses: Iterable[Loss]) -> None:
        """Write losses into the ledger.  Raises Transient, with nothing changed."""
        with self._transactions.writing() as index:
            for loss in losses:
                index.ledger.add(replace(loss, epoch=loss.epoch or index.epoch))

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Return losses (id, record) that no stored batch reports, oldest first, for the next batch of events.

        These records stay as they are from now on, so that `SealedBatch.reports` can name by id what the batch says.
        Raises Transient.
        """
        with self._transactions.reading() as index:
            return index.ledger.hand_out(limit)

    # ---- catalogues

    def catalogues(self) -> dict[bytes, Verdict | None]:
        """Return the catalogues that are kept, and the receiver's verdict on each; None: nothing heard yet."""
        with self._transactions.reading() as index:
            return {digest: carrier.verdict for digest, carrier in index.catalogues.all().items()}

    def keep_catalogues(self, needed: Collection[bytes]) -> None:
        """Let go of catalogues that are not `needed` and that no stored batch refers to.  Raises Transient."""
        with self._transactions.turn:
            with self._transactions.reading() as index:
                carriers = {} if index.rows.has_unknown_references() else index.catalogues.all()
                gone = [
                    carrier
                    for carrier in carriers.values()
                    if carrier.digest not in needed and not index.rows.is_referred_to(carrier.digest)
                ]
            if gone:
                with self._transactions.writing() as index:
                    for carrier in gone:
                        index.catalogues.drop(carrier.digest)
                self._folder.remove(self._folder.carrier_path(*_place(carrier)) for carrier in gone)


def _place(carrier: Carrier) -> tuple[bytes, str, int]:
    return carrier.digest, carrier.epoch, carrier.seq


def _check(batches: Sequence[SealedBatch]) -> None:
    """Assert that each window comes whole."""
    fragments = [batch.fragment for batch in batches if batch.fragment is not None]
    assert all(
        {f.number for f in fragments if f.window == each.window} == set(range(1, each.count + 1)) for each in fragments
    )


def _dropped(index: Index, batches: Sequence[SealedBatch]) -> list[Entry]:
    """Return the checkpoints that these batches replace."""
    first: dict[str, int] = {}
    for batch in batches:
        window, seq = (batch.fragment.window, 1) if batch.fragment is not None else batch.id
        if batch.waits or batch.fragment is not None:
            first[window] = min(seq, first.get(window, seq))
    return [entry for entry in index.checkpoints.of(first.keys()) if entry.seq >= first[entry.window]]
