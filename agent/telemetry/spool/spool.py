"""The spool: sealed batches wait here, durably, until they are acknowledged.  Touches the world.

It sees sealed bytes only; no plaintext telemetry reaches this file or the disk below it.

On disk, below the spool's folder:

    lock                                          held (flock) by the one process that uses the spool
    index.sqlite3 (-wal, -shm)                    what is stored, and the loss ledger: agent.telemetry.spool.schema
    batches/<epoch>/<seq>.<lane>.<priority>.batch one sealed batch (seq with 12 digits, lane by name)
    catalogues/<digest>.<epoch>.<seq>.batch       copies of batches that carried catalogues; at most CATALOGUES
    quarantine/                                   what recovery or reading found damaged; the newest QUARANTINE files

Identity.  `epoch` (32 hex digits) is made with the index; `seq` counts from 1 within it.  A number is used up by the
transaction that stores its batch, and a batch can be sent only after that, so no number ever names two contents.

Append.  The files are made durable first (write, fsync of each; fsync of the folder); then one transaction adds the
rows, uses up the numbers, marks the loss records that the batches carry as reported in them, and moves the source
positions.  It all happened or none of it: a file whose transaction did not commit, whole or cut short, is an orphan.
What quota, age or free space have no room for is evicted before that in a transaction of its own, which writes the
ledger.

Catalogues.  A batch that carries a catalogue is stored like any other, and a copy of it is kept until no batch refers
to it and nobody means to (`keep_catalogues`), beyond acknowledgement, quota and age: whenever the receiver misses the
catalogue the copy is sent again, and to the receiver it is a duplicate that it learns from.  What adopted batches refer
to is not known, so every catalogue stays until they are gone.

Remove (acknowledged, refused, evicted).  One transaction removes the row and settles the losses that the batch had
reported: told, if it arrived, else waiting again.  The file is unlinked after; if that does not happen, it is an
orphan.  An unlink waits for the file system's journal, so the files of acknowledged batches are left to `sweep`, which
no other call waits for; it is called when the link has nothing to carry, for its time is the scarce one, or as soon as
their space is needed.

Provisional batches.  What an open window has collected is stored in increments, so that a crash costs a few seconds and
not a whole window; nobody is sent them.  The batch of the whole window replaces them: one transaction adds its row
and removes theirs.  Its body names their numbers, which nobody else will hear of; should it be lost, the ledger names
them (`replaced`).  Where limits demand the bytes of a provisional batch its row stays (withdrawn): nothing is lost
while the window is in memory.

Run.  `begin_run` says that an agent collects now, `end_run` that all it collected is stored.  Where the second is
missing, the next `begin_run` records `open_window` for each campaign: lost is what came after the time up to which it
is durable, unless a source still holds it.

Failures.  A full or read-only disk and I/O errors raise Transient and change nothing that counts: the failed append
is undone and can be repeated (agent.telemetry.spool.transactions; recovery, at open, too).
"""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.errors import Permanent
from agent.formats.topics import Lane
from agent.formats.up.acks import Refusal
from agent.telemetry.losses import MAX_DETAIL_CHARS, Loss, Reason
from agent.telemetry.spool.account import Counts, counts
from agent.telemetry.spool.batch import Draft, Entry, entry_of, loss_of, replaced_by
from agent.telemetry.spool.catalogues import Carrier, Verdict
from agent.telemetry.spool.files import QUARANTINE, DiskFiles, Files, SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ACKNOWLEDGED, REPLACED, Total
from agent.telemetry.spool.recovery import CATALOGUES, lose, name_of, path_of, promote
from agent.telemetry.spool.retention import Limits
from agent.telemetry.spool.room import make_room
from agent.telemetry.spool.schema import Connect, connect
from agent.telemetry.spool.transactions import Doubt, Transactions

FRESH_S: Final = 300.0  # older batches are backlog: a tunnel or a change of cells is shorter, a garage is longer
FRESH_BATCHES: Final = 256  # bounds what each look at the fresh ones costs; twice what ten campaigns make in FRESH_S
UNSWEPT: Final = 20_000  # bounds what remembers them to 4 MB; the files count as space that is taken

__all__ = [
    "CATALOGUES",
    "QUARANTINE",
    "Counts",
    "Draft",
    "Entry",
    "Limits",
    "Spool",
    "Superseded",
    "Total",
    "Verdict",
]


class Superseded(Permanent):
    """What a batch was to replace is provisional no more: the index was damaged, and made anew from the files."""


class Spool:
    """See the module's text.  Methods block; any thread may call them, one runs at a time."""

    def __init__(
        self, folder: Path, limits: Limits, *, now_s: Callable[[], float], files: Files, open_database: Connect
    ) -> None:
        self._folder = SpoolFolder(folder, files)
        self._limits = limits
        self._now_s = now_s
        self._transactions = Transactions(self._folder, now_s=now_s, open_database=open_database)
        self.on_append: Callable[[], None] | None = None
        """Called after each append, in the thread that appended: the uplink's way to wake up."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        quota_bytes: int,
        max_age_s: float,
        reserve_bytes: int,
        events_bytes: int | None = None,
        now_s: Callable[[], float] = time.time,
        files: Files | None = None,
        open_database: Connect = connect,
    ) -> "Spool":
        """Open the spool in `folder`, creating it, and recover what is there.

        `events_bytes` of the quota are kept for events (default: a sixteenth).  Raises Transient where the disk
        does not let us, Permanent where another process uses the spool.
        """
        if events_bytes is None:
            events_bytes = quota_bytes // 16
        limits = Limits(quota_bytes, max_age_s, reserve_bytes, events_bytes)
        spool = cls(folder, limits, now_s=now_s, files=files or DiskFiles(), open_database=open_database)
        try:
            spool._transactions.recover()
        except BaseException:
            spool.close()
            raise
        return spool

    def close(self) -> None:
        """Close the index and let another process have the spool."""
        self._transactions.close()

    @property
    def epoch(self) -> str:
        """The life of this spool; the same until its index is lost."""
        with self._transactions.reading() as index:
            return index.epoch

    # ---- storing

    def append(self, draft: Draft, *, reports: Collection[int] = (), positions: Mapping[str, int] | None = None) -> int:
        """Store one batch; see `append_all`."""
        return self.append_all([draft], reports=reports, positions=positions)[0]

    def append_all(
        self, drafts: Sequence[Draft], *, reports: Collection[int] = (), positions: Mapping[str, int] | None = None
    ) -> list[int]:
        """Store batches, all or none; returns their sequence numbers.

        When it returns, each batch is durable, or, where the limits have no room for it, its loss is.  `reports`
        are ids from `unreported_losses` that the *first* draft carries; `positions` are set with it.  Raises
        Transient where the disk does not take it, with nothing changed; Superseded where what a draft replaces is not
        provisional any more; whatever `seal` raises passes through.
        """
        with self._transactions.turn:
            with self._transactions.reading() as index:
                epoch, first_seq, before = index.epoch, index.next_seq, index.catalogues.all()
                seqs = range(first_seq, first_seq + len(drafts))
                replaced = [_provisional(index, key) for draft in drafts for key in draft.replaces]
                sealed = [draft.seal(seq) for seq, draft in zip(seqs, drafts, strict=True)]
                entries = [entry_of(epoch, *batch) for batch in zip(seqs, drafts, sealed, strict=True)]
                dropped = self._make_room(index, entries, replaced)
                contents = {
                    path_of(self._folder, entry): content
                    for entry, content in zip(entries, sealed, strict=True)
                    if entry.seq not in dropped
                }
                carriers = [
                    Carrier(draft.carries, epoch, entry.seq, None, entry.digest)
                    for entry, draft in zip(entries, drafts, strict=True)
                    if draft.carries is not None and entry.seq not in dropped
                ]
                for carrier in carriers:
                    contents[self._carrier_path(carrier)] = sealed[carrier.seq - first_seq]
                doubt = Doubt.of(index, seqs, contents, replaced, losses=bool(dropped or replaced))
            with self._transactions.storing(contents, doubt) as index:
                index.set_next_seq(seqs.stop)
                if replaced:
                    index.remove(*(entry.position for entry in replaced))
                    index.ledger.count(REPLACED, batches=len(replaced))
                for entry in entries:
                    self._add(index, entry, dropped.get(entry.seq), reports if entry.seq == first_seq else ())
                for carrier in carriers:
                    index.catalogues.keep(carrier)
                for draft in drafts:
                    if draft.lane is not Lane.EVENTS and draft.last_t_us is not None:
                        index.set_reached(draft.campaign, draft.last_t_us)
                if positions:
                    index.set_positions(positions)
            outdated = [before[carrier.digest] for carrier in carriers if carrier.digest in before]
            self._folder.remove(map(self._carrier_path, outdated))
            self._transactions.unlink(replaced)
        if self.on_append is not None and not all(draft.provisional for draft in drafts):
            self.on_append()
        return list(seqs)

    def _add(self, index: Index, entry: Entry, dropped: Reason | None, reports: Collection[int]) -> None:
        """Store a row; or, where the limits had no room for the batch, what explains its number."""
        if dropped is None:
            index.ledger.report(reports, index.add(entry, self._now_s()))
        elif entry.provisional:
            index.add(replace(entry, size_bytes=0, withdrawn=dropped), self._now_s())
        else:
            index.ledger.add(loss_of(entry, dropped))
            for explanation in replaced_by(entry):
                index.ledger.add_explanation(explanation)

    def promote(self, keys: Collection[tuple[str, int]]) -> None:
        """Provisional batches whose window will get no batch of its own: they are sent.  Raises Transient."""
        with self._transactions.writing() as index:
            found = [index.find(*key) for key in keys]
            promote(index, [entry for entry in found if entry is not None and entry.provisional])
        if self.on_append is not None:
            self.on_append()

    # ---- runs

    def begin_run(self, now_us: int, *, lossy: str) -> None:
        """An agent collects from now on; `end_run` says when all is stored.

        Where the run before has not ended so, `open_window` goes to the ledger; `lossy` names the buses whose frames
        were in that process's memory alone, and where there is none nothing was lost.  Raises Transient.
        """
        with self._transactions.writing() as index:
            since_us, reached = index.collecting_since_us(), index.reached()
            if since_us is not None and lossy:
                for campaign, t_us in sorted((reached or {"": since_us}).items()):
                    loss = Loss(Reason.OPEN_WINDOW, campaign=campaign, detail=lossy[:MAX_DETAIL_CHARS])
                    index.ledger.add(replace(loss, epoch=index.epoch, first_t_us=t_us, last_t_us=max(t_us, now_us)))
            index.set_collecting(now_us)
            index.replace_reached({})

    def end_run(self) -> None:
        """All that was collected is stored.  Raises Transient."""
        with self._transactions.writing() as index:
            index.set_collecting(None)
            index.replace_reached({})

    def record_losses(self, losses: Iterable[Loss]) -> None:
        """Write losses into the ledger.  Raises Transient, with nothing changed."""
        with self._transactions.writing() as index:
            for loss in losses:
                index.ledger.add(replace(loss, epoch=loss.epoch or index.epoch))

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Losses (id, record) that no stored batch reports yet, oldest first: for the next batch of events.

        These records stay as they are from now on, so that `append_all` can mark by id what the batch says.
        """
        with self._transactions.reading() as index:
            losses = index.ledger.unreported_losses(limit)
            self._transactions.told = index.ledger.told = max([index.ledger.told, *(id_ for id_, _ in losses)])
            return losses

    def positions(self) -> dict[str, int]:
        """How far each source is durable, as `append_all` was told."""
        with self._transactions.reading() as index:
            return index.positions()

    def forget_positions(self, names: Iterable[str]) -> None:
        """These sources (the part of the keys before the colon) begin anew.  Raises Transient."""
        ended = tuple(f"{name}:" for name in names)
        with self._transactions.writing() as index:
            index.replace_positions({key: n for key, n in index.positions().items() if not key.startswith(ended)})

    # ---- sending

    def pending(
        self,
        limit: int,
        *,
        exclude: Collection[tuple[str, int]],
        lanes: Sequence[Lane],
        fresh: bool | None = None,
    ) -> list[Entry]:
        """Up to `limit` batches to send, of `lanes` in their order, without those whose key is in `exclude`.

        `fresh`: only those stored in the last FRESH_S that are among the last FRESH_BATCHES, or only the others; None:
        all.  Within a lane: the most important first, of those the newest first.
        """
        found: list[Entry] = []
        with self._transactions.reading() as index:
            now_s = self._now_s()
            age = (FRESH_BATCHES, now_s - FRESH_S, now_s + FRESH_S)
            for lane in lanes:
                match fresh:
                    case None:
                        entries: Iterable[Entry] = index.next_to_send(lane, exclude)
                    case True:
                        entries = index.newest(lane, *age, exclude)
                    case False:
                        entries = index.not_newest(lane, *age, exclude)
                for entry in entries:
                    if len(found) == limit:
                        return found
                    found.append(entry)
        return found

    def read(self, entry: Entry) -> bytes | None:
        """The sealed bytes; None where the batch is gone meanwhile, or damaged (then its loss is recorded).

        Raises Transient.  Does not wait for a transaction that is under way, unless it must look into what is missing.
        """
        content = self._content(entry)
        if hashlib.sha256(content).digest() == entry.digest:
            return content
        with self._transactions.turn:
            with self._transactions.reading() as index:
                current = index.find(*entry.key)
            if current is None:
                return None
            content = self._content(current)
            if hashlib.sha256(content).digest() == current.digest:
                return content
            self._lose([(current, Reason.CORRUPT, "")], keep=True)
            return None

    def _content(self, entry: Entry) -> bytes:
        """What lies where the batch should; empty where nothing does."""
        try:
            return self._folder.read(path_of(self._folder, entry))
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self._folder.refuses(error) from error

    def acknowledge(self, epoch: str, seqs: Collection[int], *, end_to_end: bool = True) -> int:
        """Forget batches that arrived; returns how many were still here.  Raises Transient: then repeat it.

        `end_to_end`: the receiver itself says so, and has the catalogues that they carried.  Their files stay until
        somebody calls `sweep`, space is needed, or there are more than UNSWEPT.
        """
        with self._transactions.turn:
            with self._transactions.writing() as index:
                if end_to_end:
                    index.catalogues.judge(epoch, seqs, Verdict.CONFIRMED)
                gone = index.sendable(epoch, seqs)
                positions = [entry.position for entry in gone]
                index.ledger.tell_reported(positions)
                index.remove(*positions)
                index.ledger.count(ACKNOWLEDGED, batches=len(gone), samples=sum(entry.samples for entry in gone))
                self._transactions.removing = gone
            self._folder.doom((name_of(entry), entry.size_bytes) for entry in gone)
            self._transactions.removing = []
        if self._folder.doomed[0] > UNSWEPT:
            self.sweep()
        return len(gone)

    def sweep(self) -> None:
        """Remove the files of acknowledged batches.  No other call waits for it, as long as there is space."""
        self._folder.sweep()

    @property
    def unswept(self) -> int:
        """Acknowledged batches whose files are still there."""
        return self._folder.doomed[0]

    def refuse(self, epoch: str, refusals: Mapping[int, Refusal]) -> list[int]:
        """Give up batches that the receiver will never take (by number): lost, and accounted for; returns which.

        Only a batch whose very bytes were refused goes: junk sent in this vehicle's name costs it nothing.
        """
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.sendable(epoch, refusals)
                carriers = [
                    carrier.seq
                    for carrier in index.catalogues.all().values()
                    if carrier.epoch == epoch
                    and carrier.seq in refusals
                    and refusals[carrier.seq].digest == carrier.checksum
                ]
            if carriers:
                with self._transactions.writing() as index:
                    index.catalogues.judge(epoch, carriers, Verdict.REFUSED)
            refused = [
                (entry, Reason.REFUSED_BY_RECEIVER, refusals[entry.seq].reason[:MAX_DETAIL_CHARS])
                for entry in found
                if entry.digest == refusals[entry.seq].digest
            ]
            self._lose(refused)
            return [entry.seq for entry, _, _ in refused]

    def give_up_unreadable(self, epoch: str, seqs: Iterable[int], digest: bytes) -> int:
        """Give up batches whose catalogue neither the receiver nor this spool has: lost, and accounted for."""
        with self._transactions.turn:
            with self._transactions.reading() as index:
                found = index.sendable(epoch, seqs)
            self._lose([(entry, Reason.CORRUPT, f"catalogue {digest.hex()} is lost") for entry in found])
            return len(found)

    # ---- catalogues

    def catalogues(self) -> dict[bytes, Verdict | None]:
        """The catalogues that are kept, and what the receiver said to each; None: nothing yet."""
        with self._transactions.reading() as index:
            return {digest: carrier.verdict for digest, carrier in index.catalogues.all().items()}

    def catalogue(self, digest: bytes) -> bytes | None:
        """The sealed batch that carries a catalogue; None where it is not kept, was refused, or is damaged."""
        with self._transactions.turn:
            with self._transactions.reading() as index:
                carrier = index.catalogues.all().get(digest)
            if carrier is None or carrier.verdict is Verdict.REFUSED:
                return None
            try:
                content = self._folder.read(self._carrier_path(carrier))
            except FileNotFoundError:
                content = b""
            except OSError as error:
                raise self._folder.refuses(error) from error
            if hashlib.sha256(content).digest() == carrier.checksum:
                return content
            with self._transactions.writing() as index:
                index.catalogues.drop(digest)
            self._folder.quarantine(self._carrier_path(carrier), self._now_s())
            return None

    def keep_catalogues(self, needed: Collection[bytes]) -> None:
        """Let go of catalogues that are not `needed` and that no stored batch refers to.  Raises Transient."""
        with self._transactions.turn:
            with self._transactions.reading() as index:
                carriers = {} if index.has_adopted() else index.catalogues.all()
                gone = [c for c in carriers.values() if c.digest not in needed and not index.is_referred_to(c.digest)]
            if gone:
                with self._transactions.writing() as index:
                    for carrier in gone:
                        index.catalogues.drop(carrier.digest)
                self._folder.remove(map(self._carrier_path, gone))

    def counts(self) -> Counts:
        """The account at this moment."""
        with self._transactions.reading() as index:
            return counts(index)

    # ---- room

    def _make_room(self, index: Index, arriving: Sequence[Entry], replaced: Sequence[Entry]) -> dict[int, Reason]:
        """Evict what the limits demand; returns the numbers of `arriving` that must not be stored, and why."""
        try:
            evicted = make_room(index, self._folder, self._limits, self._now_s(), arriving=arriving, replaced=replaced)
        except OSError as error:
            raise self._folder.refuses(error) from error
        self._lose([(entry, reason, "") for entry, reason in evicted if entry.position])
        return {entry.seq: reason for entry, reason in evicted if not entry.position}

    def _lose(self, lost: Sequence[tuple[Entry, Reason, str]], *, keep: bool = False) -> None:
        """Remove batches and record their loss; with `keep`, what is left of them goes to quarantine."""
        if not lost:
            return
        with self._transactions.writing() as index:
            for entry, reason, detail in lost:
                if entry.provisional:
                    index.withdraw(entry.position, reason)
                else:
                    lose(index, entry, reason, detail)
            self._transactions.removing = [entry for entry, _, _ in lost]
        if keep:
            for entry, _, _ in lost:
                self._folder.quarantine(path_of(self._folder, entry), self._now_s())
        self._transactions.unlink(self._transactions.removing)

    def _carrier_path(self, carrier: Carrier) -> Path:
        return self._folder.carrier_path(carrier.digest, carrier.epoch, carrier.seq)


def _provisional(index: Index, key: tuple[str, int]) -> Entry:
    entry = index.find(*key)
    if entry is None or not entry.provisional:
        raise Superseded(f"batch {key[1]} of epoch {key[0]} cannot be replaced any more")
    return entry
