"""The spool: sealed batches wait here, durably, until they are acknowledged.  Touches the world.

It sees sealed bytes only; no plaintext telemetry reaches this file or the disk below it.

On disk, below the spool's folder:

    lock                                          held (flock) by the one process that uses the spool
    index.sqlite3 (-wal, -shm)                    what is stored, and the loss ledger: agent.telemetry.spool_index
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

Recovery, at open: an index that SQLite cannot read, or of another version, is moved to quarantine/ and a new one (new
epoch) made; `index_damaged` goes to the ledger for each earlier epoch.  The rest stands in
agent.telemetry.spool_recovery.  Opening never fails for what it finds damaged; only for a folder that cannot be used,
or used by another process.

Failures.  A full or read-only disk and I/O errors raise Transient and change nothing that counts: the failed append
is undone (even where its commit reached the disk although it reported an error) and can be repeated.  After any
SQLite error the index is opened anew at the next call.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from agent.errors import Permanent, Transient
from agent.formats.acks import Refusal
from agent.formats.topics import Lane
from agent.telemetry import retention
from agent.telemetry.losses import MAX_DETAIL_CHARS, Loss, Reason
from agent.telemetry.retention import Limits
from agent.telemetry.spool_account import Counts, counts
from agent.telemetry.spool_batch import Draft, entry_of, loss_of, replaced_by
from agent.telemetry.spool_files import QUARANTINE, DiskFiles, Files, SpoolFolder
from agent.telemetry.spool_index import ACKNOWLEDGED, REPLACED, Carrier, Connect, Entry, Index, Total, Verdict, connect
from agent.telemetry.spool_recovery import CATALOGUES, lose, name_of, path_of, promote, reconcile

FRESH_S: Final = 300.0  # older batches are backlog: a tunnel or a change of cells is shorter, a garage is longer
FRESH_BATCHES: Final = 256  # bounds what each look at the fresh ones costs; twice what ten campaigns make in FRESH_S
AGED_AT_ONCE: Final = 64  # batches over age that one append evicts: bounds its time, many more than it adds
CLOCK_SET_S: Final = 1_735_689_600.0  # 2025-01-01: what an earlier clock stored has no age, for nobody had set it
UNSWEPT: Final = 20_000  # bounds what remembers them to 4 MB; the files count as space that is taken
_DAMAGE: Final = {  # SQLite's primary result codes: wrong pages, missing tables, impossible rows
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}

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


@dataclass(frozen=True, slots=True)
class _Doubt:
    """An append that is under way, or failed: it may have committed all the same.  What was before it."""

    seqs: range
    paths: tuple[Path, ...]
    positions: Mapping[str, int]
    reached: Mapping[str, int]
    ledger: tuple[Sequence[tuple[int, Loss]], Mapping[str, Total]] | None  # where the append touched it
    carriers: tuple[Carrier, ...]
    replaced: tuple[Entry, ...]


class Spool:
    """See the module's text.  Methods block; any thread may call them, one runs at a time."""

    def __init__(
        self, folder: Path, limits: Limits, *, now_s: Callable[[], float], files: Files, open_database: Connect
    ) -> None:
        self._folder = SpoolFolder(folder, files)
        self._limits = limits
        self._now_s = now_s
        self._open_database = open_database
        self._turn = threading.RLock()
        self._index: Index | None = None
        self._doubt: _Doubt | None = None
        self._removing: list[Entry] = []  # by a transaction that is under way, or reported an error
        self._told = 0  # see Index.told
        self._lock_fd = -1
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
            spool._recover()
        except BaseException:
            spool.close()
            raise
        return spool

    def close(self) -> None:
        """Close the index and let another process have the spool."""
        with self._turn:
            self._drop_index()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    @property
    def epoch(self) -> str:
        """The life of this spool; the same until its index is lost."""
        with self._reading() as index:
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
        with self._turn:
            with self._reading() as index:
                epoch, first_seq, before = index.epoch, index.next_seq, index.carriers()
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
                self._doubt = _Doubt(
                    seqs,
                    tuple(contents),
                    index.positions(),
                    index.reached(),
                    (index.unreported_losses(-1), index.totals()) if dropped or replaced else None,
                    tuple(before.values()),
                    tuple(replaced),
                )
            try:
                self._folder.write_all(contents)
            except OSError as error:
                raise self._disk_error(error) from error
            with self._writing(settle=False) as index:
                index.set_next_seq(seqs.stop)
                if replaced:
                    index.remove(*(entry.position for entry in replaced))
                    index.count(REPLACED, batches=len(replaced))
                for entry in entries:
                    self._add(index, entry, dropped.get(entry.seq), reports if entry.seq == first_seq else ())
                for carrier in carriers:
                    index.set_carrier(carrier)
                for draft in drafts:
                    if draft.lane is not Lane.EVENTS and draft.last_t_us is not None:
                        index.set_reached(draft.campaign, draft.last_t_us)
                if positions:
                    index.set_positions(positions)
            self._doubt = None
            outdated = [before[carrier.digest] for carrier in carriers if carrier.digest in before]
            self._folder.remove(map(self._carrier_path, outdated))
            self._unlink(replaced)
        if self.on_append is not None and not all(draft.provisional for draft in drafts):
            self.on_append()
        return list(seqs)

    def _add(self, index: Index, entry: Entry, dropped: Reason | None, reports: Collection[int]) -> None:
        """Store a row; or, where the limits had no room for the batch, what explains its number."""
        if dropped is None:
            index.report(reports, index.add(entry, self._now_s()))
        elif entry.provisional:
            index.add(replace(entry, size_bytes=0, withdrawn=dropped), self._now_s())
        else:
            index.add_loss(loss_of(entry, dropped))
            for explanation in replaced_by(entry):
                index.add_explanation(explanation)

    def promote(self, keys: Collection[tuple[str, int]]) -> None:
        """Provisional batches whose window will get no batch of its own: they are sent.  Raises Transient."""
        with self._turn, self._writing() as index:
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
        with self._turn, self._writing() as index:
            since_us, reached = index.collecting_since_us(), index.reached()
            if since_us is not None and lossy:
                for campaign, t_us in sorted((reached or {"": since_us}).items()):
                    loss = Loss(Reason.OPEN_WINDOW, campaign=campaign, detail=lossy[:MAX_DETAIL_CHARS])
                    index.add_loss(replace(loss, epoch=index.epoch, first_t_us=t_us, last_t_us=max(t_us, now_us)))
            index.set_collecting(now_us)
            index.replace_reached({})

    def end_run(self) -> None:
        """All that was collected is stored.  Raises Transient."""
        with self._turn, self._writing() as index:
            index.set_collecting(None)
            index.replace_reached({})

    def record_losses(self, losses: Iterable[Loss]) -> None:
        """Write losses into the ledger.  Raises Transient, with nothing changed."""
        with self._turn, self._writing() as index:
            for loss in losses:
                index.add_loss(replace(loss, epoch=loss.epoch or index.epoch))

    def unreported_losses(self, limit: int) -> list[tuple[int, Loss]]:
        """Losses (id, record) that no stored batch reports yet, oldest first: for the next batch of events.

        These records stay as they are from now on, so that `append_all` can mark by id what the batch says.
        """
        with self._reading() as index:
            losses = index.unreported_losses(limit)
            self._told = index.told = max([self._told, *(id_ for id_, _ in losses)])
            return losses

    def positions(self) -> dict[str, int]:
        """How far each source is durable, as `append_all` was told."""
        with self._reading() as index:
            return index.positions()

    def forget_positions(self, names: Iterable[str]) -> None:
        """These sources (the part of the keys before the colon) begin anew.  Raises Transient."""
        ended = tuple(f"{name}:" for name in names)
        with self._turn, self._writing() as index:
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
        with self._reading() as index:
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
        with self._turn:
            with self._reading() as index:
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
            raise self._disk_error(error) from error

    def acknowledge(self, epoch: str, seqs: Collection[int], *, end_to_end: bool = True) -> int:
        """Forget batches that arrived; returns how many were still here.  Raises Transient: then repeat it.

        `end_to_end`: the receiver itself says so, and has the catalogues that they carried.  Their files stay until
        somebody calls `sweep`, space is needed, or there are more than UNSWEPT.
        """
        with self._turn:
            with self._writing() as index:
                if end_to_end:
                    index.judge_carriers(epoch, seqs, Verdict.CONFIRMED)
                gone = index.sendable(epoch, seqs)
                positions = [entry.position for entry in gone]
                index.tell_reported(positions)
                index.remove(*positions)
                index.count(ACKNOWLEDGED, batches=len(gone), samples=sum(entry.samples for entry in gone))
                self._removing = gone
            self._folder.doom((name_of(entry), entry.size_bytes) for entry in gone)
            self._removing = []
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
        with self._turn:
            with self._reading() as index:
                found = index.sendable(epoch, refusals)
                carriers = [
                    carrier.seq
                    for carrier in index.carriers().values()
                    if carrier.epoch == epoch
                    and carrier.seq in refusals
                    and refusals[carrier.seq].digest == carrier.checksum
                ]
            if carriers:
                with self._writing() as index:
                    index.judge_carriers(epoch, carriers, Verdict.REFUSED)
            refused = [
                (entry, Reason.REFUSED_BY_RECEIVER, refusals[entry.seq].reason[:MAX_DETAIL_CHARS])
                for entry in found
                if entry.digest == refusals[entry.seq].digest
            ]
            self._lose(refused)
            return [entry.seq for entry, _, _ in refused]

    def give_up_unreadable(self, epoch: str, seqs: Iterable[int], digest: bytes) -> int:
        """Give up batches whose catalogue neither the receiver nor this spool has: lost, and accounted for."""
        with self._turn:
            with self._reading() as index:
                found = index.sendable(epoch, seqs)
            self._lose([(entry, Reason.CORRUPT, f"catalogue {digest.hex()} is lost") for entry in found])
            return len(found)

    # ---- catalogues

    def catalogues(self) -> dict[bytes, Verdict | None]:
        """The catalogues that are kept, and what the receiver said to each; None: nothing yet."""
        with self._reading() as index:
            return {digest: carrier.verdict for digest, carrier in index.carriers().items()}

    def catalogue(self, digest: bytes) -> bytes | None:
        """The sealed batch that carries a catalogue; None where it is not kept, was refused, or is damaged."""
        with self._turn:
            with self._reading() as index:
                carrier = index.carriers().get(digest)
            if carrier is None or carrier.verdict is Verdict.REFUSED:
                return None
            try:
                content = self._folder.read(self._carrier_path(carrier))
            except FileNotFoundError:
                content = b""
            except OSError as error:
                raise self._disk_error(error) from error
            if hashlib.sha256(content).digest() == carrier.checksum:
                return content
            with self._writing() as index:
                index.drop_carrier(digest)
            self._folder.quarantine(self._carrier_path(carrier), self._now_s())
            return None

    def keep_catalogues(self, needed: Collection[bytes]) -> None:
        """Let go of catalogues that are not `needed` and that no stored batch refers to.  Raises Transient."""
        with self._turn:
            with self._reading() as index:
                carriers = {} if index.has_adopted() else index.carriers()
                gone = [c for c in carriers.values() if c.digest not in needed and not index.is_referred_to(c.digest)]
            if gone:
                with self._writing() as index:
                    for carrier in gone:
                        index.drop_carrier(carrier.digest)
                self._folder.remove(map(self._carrier_path, gone))

    def counts(self) -> Counts:
        """The account at this moment."""
        with self._reading() as index:
            return counts(index)

    # ---- room

    def _make_room(self, index: Index, arriving: Sequence[Entry], replaced: Sequence[Entry]) -> dict[int, Reason]:
        """Evict what the limits demand; returns the numbers of `arriving` that must not be stored, and why.

        What is `replaced` counts no more, though its bytes still take their space.
        """
        limits, now_s = self._limits, self._now_s()
        since_s = CLOCK_SET_S if now_s >= CLOCK_SET_S else 0.0
        aged = index.stored_between(since_s, now_s - limits.max_age_s, AGED_AT_ONCE)
        stored_bytes = index.stored_bytes()
        arriving_bytes = sum(entry.size_bytes for entry in arriving)
        taken_bytes = stored_bytes + self._folder.doomed[1] + arriving_bytes
        try:
            free_bytes = self._folder.free_bytes()
            tight = free_bytes < limits.reserve_bytes + arriving_bytes or taken_bytes > limits.quota_bytes
            if not tight and not aged:
                return {}
            if tight:
                self._folder.sweep()
                free_bytes = self._folder.free_bytes()
        except OSError as error:
            raise self._disk_error(error) from error
        leaving = {entry.position for entry in replaced}
        incoming = [
            replace(entry.as_held(), position=2**62 + number)  # newer than anything stored
            for number, entry in enumerate(arriving)
        ]
        evictions = retention.evictions(
            limits,
            stored_bytes=stored_bytes - sum(entry.size_bytes for entry in replaced),
            events_bytes=index.usage()[Lane.EVENTS][1],
            free_bytes=free_bytes,
            incoming=incoming,
            expired=[entry.as_held() for entry in aged if entry.position not in leaving],
            data=retention.merge_by_sacrifice(
                (entry.as_held() for entry in entries if entry.position not in leaving)
                for entries in (
                    index.next_to_evict(Lane.LIVE),
                    index.next_to_evict(Lane.BACKLOG),
                    index.provisional_to_evict(),
                )
            ),
            events=(entry.as_held() for entry in index.next_to_evict(Lane.EVENTS)),
        )
        dropped: dict[int, Reason] = {}
        stored: list[tuple[Entry, Reason, str]] = []
        for eviction in evictions:
            number = eviction.batch.position - 2**62
            if number >= 0:
                dropped[arriving[number].seq] = eviction.reason
            elif (entry := index.at(eviction.batch.position)) is not None:
                stored.append((entry, eviction.reason, ""))
        self._lose(stored)
        return dropped

    def _lose(self, lost: Sequence[tuple[Entry, Reason, str]], *, keep: bool = False) -> None:
        """Remove batches and record their loss; with `keep`, what is left of them goes to quarantine."""
        if not lost:
            return
        with self._writing() as index:
            for entry, reason, detail in lost:
                if entry.provisional:
                    index.withdraw(entry.position, reason)
                else:
                    lose(index, entry, reason, detail)
            self._removing = [entry for entry, _, _ in lost]
        if keep:
            for entry, _, _ in lost:
                self._folder.quarantine(path_of(self._folder, entry), self._now_s())
        self._unlink(self._removing)

    # ---- files

    def _carrier_path(self, carrier: Carrier) -> Path:
        return self._folder.carrier_path(carrier.digest, carrier.epoch, carrier.seq)

    def _unlink(self, entries: Iterable[Entry]) -> None:
        """Remove the files of batches that the index knows no more."""
        self._folder.remove([path_of(self._folder, entry) for entry in entries])
        self._removing = []

    def _disk_error(self, error: OSError) -> Transient:
        return Transient(
            f"spool {self._folder.root}: {error.strerror or error}: free some space or mend the file system; "
            "the data stays in memory meanwhile"
        )

    # ---- the index

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Index]:
        with self._turn:
            try:
                yield self._ready()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)

    @contextlib.contextmanager
    def _writing(self, *, settle: bool = True) -> Iterator[Index]:
        """A transaction: committed at the end, rolled back where anything raises."""
        with self._turn:
            try:
                index = self._ready(settle=settle)
                index.begin()
                yield index
                index.commit()
            except sqlite3.DatabaseError as error:
                self._give_up_index(error)
            except BaseException:
                self._drop_index()  # closing rolls back; what is opened anew is what the disk holds
                raise

    def _give_up_index(self, error: sqlite3.DatabaseError) -> NoReturn:
        self._drop_index()
        if not _is_damage(error):
            raise self._index_error(error) from error
        self._recover()
        raise Transient(f"spool {self._folder.root}: the index was damaged and is made anew: {error}") from error

    def _ready(self, *, settle: bool = True) -> Index:
        """The open index, opened anew after an error, with a doubtful append taken back (`settle`)."""
        if self._index is None:
            self._index = self._open_index()
            if not self._index.recovered():
                raise sqlite3.DatabaseError("the index file is gone")
        if settle:
            self._settle(self._index)
        if self._removing:
            self._unlink([entry for entry in self._removing if not _has_bytes(self._index.find(*entry.key))])
        return self._index

    def _open_index(self) -> Index:
        if self._lock_fd < 0:
            raise Permanent(f"spool {self._folder.root} is closed")
        return Index.open(self._folder.index, self._open_database, new_epoch=secrets.token_hex(16), told=self._told)

    def _settle(self, index: Index) -> None:
        """Take back an append that was reported as failed; who wanted it repeats it."""
        if self._doubt is not None:
            try:
                self._undo(index, self._doubt)
            except BaseException:
                self._drop_index()
                raise
            self._doubt = None

    def _undo(self, index: Index, doubt: _Doubt) -> None:
        """None of its batches can have been sent."""
        if index.next_seq == doubt.seqs.stop:  # it landed
            index.begin()
            for seq in doubt.seqs:
                if (entry := index.find(index.epoch, seq)) is not None:
                    index.unreport(entry.position)
                    index.remove(entry.position)
            if doubt.ledger is not None:
                index.restore_ledger(*doubt.ledger)
            for entry in doubt.replaced:
                index.add(entry, self._now_s())
            index.replace_positions(doubt.positions)
            index.replace_reached(doubt.reached)
            index.replace_carriers(doubt.carriers)
            index.set_next_seq(doubt.seqs.start)
            index.commit()
        self._folder.remove(doubt.paths)

    def _drop_index(self) -> None:
        if self._index is not None:
            index, self._index = self._index, None
            with contextlib.suppress(sqlite3.Error):  # given up because of an error: this one adds nothing
                index.close()

    def _index_error(self, error: sqlite3.Error) -> Transient:
        return Transient(
            f"spool {self._folder.root}: index: {error}: free some space or mend the file system; "
            "the data stays in memory meanwhile"
        )

    # ---- recovery

    def _recover(self) -> None:
        """See the module's text."""
        with self._turn:
            try:
                self._folder.prepare()
                self._take_lock()
                self._folder.sweep()  # or a new index would take in what was acknowledged
                self._removing = []
                try:
                    self._index = self._open_index()
                    self._settle(self._index)
                    reconcile(self._index, self._folder, self._now_s())
                except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
                    if isinstance(error, sqlite3.DatabaseError) and not _is_damage(error):
                        raise
                    self._drop_index()
                    self._folder.set_index_aside()
                    self._index = self._open_index()
                    self._settle(self._index)  # else its files would be taken in, and their batches be stored twice
                    reconcile(self._index, self._folder, self._now_s())
            except OSError as error:
                self._drop_index()
                raise self._disk_error(error) from error
            except sqlite3.Error as error:
                self._drop_index()
                raise self._index_error(error) from error

    def _take_lock(self) -> None:
        if self._lock_fd >= 0:
            return
        self._lock_fd = os.open(self._folder.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Permanent(f"spool {self._folder.root} is in use by another process: stop that one") from error


def _provisional(index: Index, key: tuple[str, int]) -> Entry:
    entry = index.find(*key)
    if entry is None or not entry.provisional:
        raise Superseded(f"batch {key[1]} of epoch {key[0]} cannot be replaced any more")
    return entry


def _has_bytes(entry: Entry | None) -> bool:
    return entry is not None and entry.withdrawn is None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the database's content is at fault, not the disk below it (full, read-only, I/O error)."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE
