"""Stores sealed batches and checkpoints in the spool, and records losses.

The outbox is the only writer.  It asks for the next ids, seals bodies under them, and appends the sealed batches.  The
append verifies that no other append has used up the ids.  So the spool need not be locked while bodies are sealed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.columns import Clock
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import BatchId, Entry, SealedBatch, entry_of
from agent.telemetry.spool.catalogues import Carrier, Verdict
from agent.telemetry.spool.catch_up import add_row
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.recovery import promote
from agent.telemetry.spool.room import Misfits, Room
from agent.telemetry.spool.runs import note_campaigns
from agent.telemetry.spool.transactions import NotStored, Transactions


class OutdatedIds(NotStored):
    """Raised if batches were sealed under ids that are no longer the next ids.  Seal the bodies again under new ids."""


class Writer:
    """The methods of the spool that the outbox uses.

    Methods block; any thread may call them, and one runs at a time.
    """

    def __init__(
        self,
        transactions: Transactions,
        folder: SpoolFolder,
        room: Room,
        *,
        clock: Callable[[], Clock],
        notify: Callable[[], None],
    ) -> None:
        """`notify` is called after each append of batches that can be sent, in the thread that appended."""
        self._transactions = transactions
        self._memory = transactions.memory
        self._folder = folder
        self._room = room
        self._clock = clock
        self._notify = notify
        self._campaigns: dict[str, int | None] = {}

    # ---- storing

    def collect(self, campaigns: Iterable[str], now_us: int) -> None:
        """Set the campaigns that collect from `now_us` on.

        The campaigns of the first call count as collecting since the beginning of the run.

        The next append stores the campaigns, so that a loss can name those that have stored nothing yet.
        """
        began_us = now_us if self._campaigns else None
        self._campaigns = {campaign: self._campaigns.get(campaign, began_us) for campaign in campaigns}

    def next_ids(self, count: int) -> list[BatchId]:
        """Return the ids of the next `count` batches.  Only an append uses ids up.  Raises Transient."""
        with self._transactions.reading() as index:
            return [BatchId(index.epoch, index.next_seq + number) for number in range(count)]

    def append(
        self, batches: Sequence[SealedBatch], *, token: str, resume_points: Mapping[str, int] | None = None
    ) -> None:
        """Store all batches and set the resume points, or change nothing.

        When the call returns, each batch is durable.  If the limits have no room for a batch, it has a durable row, and
        its bytes are in memory.  If memory has no room either, the loss of the batch is durable.  The append of a
        window's fragments drops the window's checkpoints.  An append that reported failure may have stored checkpoints
        all the same.  Therefore, the append of checkpoint k of a window replaces all stored checkpoints of that window
        whose number is k or higher.

        `token` names the append; each append needs a new one.  If the call raises, the append may or may not have
        happened.  Ask `stored`, or call again with the same token, which does nothing if the append happened.

        Raises Transient if the disk refuses, NotStored if this append certainly did not happen, and OutdatedIds if the
        ids are not the next ids.
        """
        assert token
        _check(batches)
        with self._transactions.turn:
            try:
                stored = self._transactions.stored(token)
            except Transient as error:
                if self._transactions.tried(token):
                    raise
                raise NotStored(str(error)) from error
            if not stored:
                self._store(batches, token, resume_points or {})
        if not all(batch.waits for batch in batches):
            self._notify()

    def _store(self, batches: Sequence[SealedBatch], token: str, resume_points: Mapping[str, int]) -> None:
        try:
            entries, dropped, misfits = self._make_room(batches)
        except NotStored:
            raise
        except Transient as error:
            raise NotStored(str(error)) from error
        absent = misfits.held.keys() | misfits.refused.keys()
        with self._transactions.reading() as index:
            before = index.catalogues.all()
            contents = {
                self._folder.path(entry.name): batch.content
                for entry, batch in zip(entries, batches, strict=True)
                if entry.key not in absent
            }
            carriers = [
                (Carrier(batch.carries, *batch.id, None, entry.digest), batch)
                for entry, batch in zip(entries, batches, strict=True)
                if batch.carries is not None and entry.key not in absent
            ]
            contents |= {self._folder.carrier_path(*_place(carrier)): batch.content for carrier, batch in carriers}
        self._transactions.open_windows |= {batch.id.epoch for batch in batches if batch.waits}
        windows = frozenset(batch.fragment.window for batch in batches if batch.fragment is not None)
        with self._transactions.storing(token, contents, closes=windows, dropped=dropped, held=misfits.held) as index:
            index.set_next_seq(index.next_seq + sum(not batch.waits for batch in batches))
            note_campaigns(index, self._campaigns)
            index.rows.remove(*(entry.row for entry in dropped))
            now = index.boots.note(self._clock())
            for entry, batch in zip(entries, batches, strict=True):
                add_row(index, self._memory, entry, batch, now=now, misfits=misfits)
                if batch.lane is not Lane.EVENTS and batch.last_t_us is not None:
                    index.reached.set(batch.campaign, batch.last_t_us)
            for carrier, _ in carriers:
                index.catalogues.keep(carrier)
            index.resume_points.set(resume_points)
        outdated = [before[carrier.digest] for carrier, _ in carriers if carrier.digest in before]
        self._folder.remove(self._folder.carrier_path(*_place(carrier)) for carrier in outdated)
        if absent:
            # Recovery must not mistake a window that lacks a fragment for a window that was never sent.
            self._folder.settle_checkpoints()

    def _make_room(self, batches: Sequence[SealedBatch]) -> tuple[list[Entry], list[Entry], Misfits]:
        """Return the entries of `batches`, the checkpoints that they replace, and those that do not fit."""
        with self._transactions.reading() as index:
            ordinary = [batch for batch in batches if not batch.waits]
            if [batch.id for batch in ordinary] != self.next_ids(len(ordinary)):
                raise OutdatedIds("The ids of these batches are no longer the next ones of the spool. Seal them again.")
            dropped = _dropped(index, batches)
            entries = [entry_of(batch) for batch in batches]
            return entries, dropped, self._room.make(index, entries, dropped)

    def stored(self, token: str) -> bool:
        """Return whether the append with this token was committed, even if it raised.  Raises Transient.

        The token must be that of the last append.
        """
        return self._transactions.stored(token)

    def tried(self, token: str) -> bool:
        """Return whether a call with this token that raised may have been committed.  `stored` tells whether it was."""
        return self._transactions.tried(token)

    # ---- losses

    def record_losses(
        self,
        losses: Iterable[Loss],
        *,
        token: str,
        resume_points: Mapping[str, int] | None = None,
        windows: Mapping[str, int] | None = None,
    ) -> None:
        """Write losses into the ledger, with the resume points that pass the lost frames.  Raises Transient.

        `windows` has, for each lost window, the number of its checkpoints that become batches to send, because only
        they still have samples of the window.  Further checkpoints come from an append that reported failure; their
        samples are among the losses, so they are removed.  `token` names the call as in `append`: if the call raises,
        `tried` and `stored` tell whether everything was recorded.  Otherwise, nothing has changed.
        """
        windows = windows or {}
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.checkpoints.of(windows.keys())
            kept = [entry for entry in found if entry.seq <= windows[entry.window]]
            others = [entry for entry in found if entry.seq > windows[entry.window]]
            with self._transactions.storing(token, {}, closes=frozenset(windows), dropped=others) as index:
                for loss in losses:
                    index.ledger.add(replace(loss, epoch=loss.epoch or index.epoch))
                index.rows.remove(*(entry.row for entry in others))
                promote(index, kept)
                index.resume_points.set(resume_points or {})
        if kept:
            self._notify()

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Return up to `limit` loss records that wait to be put into a batch of events, each with its id.

        These records never change from now on, so `SealedBatch.reports` can name them by their ids.  Raises Transient.
        """
        with self._transactions.reading() as index:
            return index.ledger.hand_out(limit)

    # ---- catalogues

    def catalogues(self) -> dict[bytes, Verdict | None]:
        """Return the receiver's verdict on each kept catalogue, by digest; None means that no answer has come yet."""
        with self._transactions.reading() as index:
            return {digest: carrier.verdict for digest, carrier in index.catalogues.all().items()}

    def keep_catalogues(self, needed: Collection[bytes]) -> None:
        """Remove catalogues that are not in `needed` and that no stored batch refers to.  Raises Transient.

        If the catalogue of any stored batch is unknown, no catalogue is removed.
        """
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
    """Assert that `batches` has all fragments of a window if it has one of them."""
    fragments = [batch.fragment for batch in batches if batch.fragment is not None]
    assert all(
        {f.number for f in fragments if f.window == each.window} == set(range(1, each.count + 1)) for each in fragments
    )


def _dropped(index: Index, batches: Sequence[SealedBatch]) -> list[Entry]:
    """Return the stored checkpoints that an append of `batches` replaces."""
    first: dict[str, int] = {}
    for batch in batches:
        window, seq = (batch.fragment.window, 1) if batch.fragment is not None else batch.id
        if batch.waits or batch.fragment is not None:
            first[window] = min(seq, first.get(window, seq))
    return [entry for entry in index.checkpoints.of(first.keys()) if entry.seq >= first[entry.window]]
