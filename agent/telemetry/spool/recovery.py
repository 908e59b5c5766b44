"""Makes the spool's index and its files agree when the spool is opened.

  1. If a row has no file, or the file has another size than the row says, the batch is recorded as lost (`corrupt`).
     A file of another size is moved to quarantine/.
  2. If a file has no row and the index is not new, the file is deleted.  A power cut has left the file in one of two
     ways.  Either the power failed before the commit of an append, and the number in the file's name will be used
     again.  Or the power failed before an unlink, and the batch was removed already.
  3. If a file has no row and the index is new, the old index was lost.  The batch may never have been sent.  It is
     therefore adopted: it gets a row, and keeps its epoch and number.  If the content of the file does not match the
     checksum in its name, the batch is recorded as lost instead.  If a window has both fragments and checkpoints, only
     one of the two kinds is adopted, so the receiver never gets both (`_adopt`).
  4. If the window of a checkpoint is not open in this process, the checkpoint becomes an ordinary batch.  If the bytes
     of the checkpoint were removed, the checkpoint is recorded as lost instead.
  5. If only the memory of an earlier process had the bytes of a batch, the batch is recorded as lost, for the reason in
     its row.  A batch that this process holds in memory stays, and gets a row in a new index.

The content of batches that have a row is not checked here.  Reading the whole backlog from flash would delay the first
frame.  Each batch is checked by SHA-256 when it is read, so no damaged batch is sent.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agent.formats.up.columns import Clock
from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import Entry, adopted_entry, loss_of
from agent.telemetry.spool.boots import Moment
from agent.telemetry.spool.catalogues import Carrier
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ADOPTED
from agent.telemetry.spool.memory import Memory
from agent.telemetry.spool.names import BatchName, is_epoch, matches

CATALOGUES: Final = 32
"""The spool keeps at most this many catalogues, each in a file no larger than a batch."""


@dataclass(slots=True)
class _Adoption:
    """The files that have no row in a new index, sorted by what happens to them.

    `readable` batches are adopted, `lost` ones are recorded as lost, and `needless` files are removed.
    """

    readable: list[Entry] = field(default_factory=list)
    lost: list[tuple[Path, Entry]] = field(default_factory=list)
    needless: list[Path] = field(default_factory=list)


def reconcile(index: Index, folder: SpoolFolder, now: Clock, open_windows: Collection[str], memory: Memory) -> None:
    """Make the index and the files agree, and record in the ledger which batches are lost.

    `open_windows` has the ids of the windows that this process still collects; their checkpoints stay checkpoints.
    `memory` has the batches whose bytes only this process has.
    Raises OSError or sqlite3.Error.  A row that the spool never writes may also raise ValueError, TypeError or
    OverflowError.
    """
    epoch = index.epoch
    if not is_epoch(epoch):
        raise sqlite3.DatabaseError(f"the index has the epoch {epoch!r}, which is not 32 hex digits")
    folder.prepare_epoch(epoch)
    found = folder.batches()
    lost: list[tuple[Path, Entry]] = []
    last_seq = 0
    for entry in index.rows.all():
        path = folder.path(entry.name)
        if entry.epoch == epoch:
            last_seq = max(last_seq, entry.seq)
        if entry.withdrawn is None and found.pop(path, (None, None))[1] != entry.size_bytes:
            lost.append((path, entry))
    new = not index.recovered()
    adoption = _adopt(folder, found, open_windows) if new else _Adoption(needless=list(found))
    earlier = sorted(set(folder.epochs()) - {epoch})
    kept, orphans = _carriers(index, folder, new=new)
    index.check()
    index.begin()
    index.usage.recount()
    index.set_next_seq(max(index.next_seq, last_seq + 1))
    for _, entry in lost + adoption.lost:
        lose(index, entry, Reason.CORRUPT)
    _lose_vanished(index, memory)
    promote(index, (entry for entry in index.checkpoints.all() if entry.window not in open_windows))
    if new:
        sent = [entry for entry in adoption.readable if not entry.waits]
        index.ledger.count(ADOPTED, batches=len(sent) + len(adoption.lost) + len(memory))
        if adoption.readable or len(memory):
            # When these batches were stored is unknown, so their age counts from now.
            moment = index.boots.note(now)
            for entry in adoption.readable:
                index.rows.add(entry, moment)
            _add_held(index, memory, moment)
        for name in earlier:
            index.ledger.add(Loss(Reason.INDEX_DAMAGED, epoch=name))
        index.set_recovered()
    index.catalogues.replace(kept)
    index.commit()
    folder.remove([*orphans, *adoption.needless])
    for path, _ in lost + adoption.lost:
        folder.quarantine(path, now.wall_us)
    for name in earlier:
        folder.remove_epoch_if_empty(name)


def _lose_vanished(index: Index, memory: Memory) -> None:
    """Record as lost the batches whose bytes were only in the memory of an earlier process."""
    for entry in index.rows.without_file():
        if entry.withdrawn is not None and memory.get(entry.key) is None:
            lose(index, entry, entry.withdrawn)


def _add_held(index: Index, memory: Memory, now: Moment) -> None:
    """Give the batches that memory holds rows in a new index, in the order of their arrival."""
    for entry in sorted(memory.entries(), key=lambda each: each.row):
        row = index.rows.add(replace(entry, size_bytes=0), now)
        memory.hold(replace(entry, row=row), memory.content(entry.key) or b"")


def promote(index: Index, checkpoints: Iterable[Entry]) -> None:
    """Turn checkpoints into ordinary batches.  A checkpoint whose bytes were removed is recorded as lost instead.

    Call this function within a transaction.
    """
    for entry in checkpoints:
        if entry.withdrawn is None:
            index.ledger.count(ADOPTED, batches=1)
            index.checkpoints.promote(entry.row)
        else:
            lose(index, entry, entry.withdrawn)


def lose(index: Index, entry: Entry, reason: Reason, detail: str = "") -> None:
    """Remove the row of a batch, and record the batch's loss in the ledger.

    The file stays for the caller to remove.  Call this function within a transaction.
    """
    if entry.waits:
        # The number belongs to another epoch, so the batch counts as adopted, like a checkpoint that is sent.
        index.ledger.count(ADOPTED, batches=1)
    index.ledger.unreport(entry.row)
    index.rows.remove(entry.row)
    index.ledger.add(loss_of(entry, reason, detail))


def _carriers(index: Index, folder: SpoolFolder, *, new: bool) -> tuple[list[Carrier], list[Path]]:
    """Return the catalogues that have a file, and the files that belong to no catalogue.

    A new index lists no catalogue yet.  Up to CATALOGUES of the files are then adopted as its catalogues.
    """
    known = index.catalogues.all()
    kept: dict[bytes, Carrier] = {}
    orphans: list[Path] = []
    for path, (digest, epoch, seq) in sorted(folder.carriers().items()):
        carrier = known.get(digest)
        if new and digest not in kept and len(kept) < CATALOGUES:
            with contextlib.suppress(OSError):
                checksum = hashlib.sha256(folder.read(path)).digest()
                kept[digest] = Carrier(digest, epoch, seq, None, checksum)
        elif carrier is not None and (carrier.epoch, carrier.seq) == (epoch, seq):
            kept[digest] = carrier
        else:
            orphans.append(path)
    return list(kept.values()), orphans


def _adopt(
    folder: SpoolFolder, found: Mapping[Path, tuple[BatchName, int]], open_windows: Collection[str]
) -> _Adoption:
    """Decide what happens to the files that have no row.

    For each window that has fragments, there are three cases.  A damaged fragment counts as missing.

    1. All fragments are there.  They are adopted.  The window's checkpoints are removed, because the fragments hold
       the same samples.
    2. A fragment is missing, and no checkpoints remain.  All readable fragments are adopted.
    3. A fragment is missing, and checkpoints remain.  If the fragments have more bytes than the checkpoints, the
       fragments are adopted, and the checkpoints are recorded as lost.  Otherwise, the checkpoints are adopted, and the
       fragments are recorded as lost.

    In the third case, the receiver has no fragment of the window.  The spool removes a fragment only after the removal
    of the checkpoints is durable.  As checkpoints remain, no fragment was removed, so the power failed while the
    fragments were written.  The spool sends a fragment only after all fragments are written, so none was sent.
    """
    adoption = _Adoption()
    whole: dict[BatchName, Entry] = {}
    for path, (name, _) in sorted(found.items()):
        waits = name.is_checkpoint and name.window in open_windows
        try:
            content = folder.read(path)
        except OSError:
            content = b""
        entry = adopted_entry(name, content, waits=waits)
        if content and matches(name, content):
            whole[name] = entry
        elif waits:
            adoption.needless.append(path)  # its window is in memory, so nothing is lost with the checkpoint
        else:
            adoption.lost.append((path, entry))
    fragments, checkpoints = _by_window(whole)
    for window, own in fragments.items():
        others = checkpoints.get(window, [])
        if _is_whole(own):
            # The window holds the samples of its checkpoints, so even a damaged checkpoint is not a loss.
            adoption.needless += [folder.path(entry.name) for entry in others]
            adoption.needless += [path for path, entry in adoption.lost if entry.epoch == window]
            adoption.lost = [each for each in adoption.lost if each[1].epoch != window]
            dropped = others
        elif others:
            dropped = min(own, others, key=_size)
            adoption.lost += [(folder.path(entry.name), entry) for entry in dropped]
        else:
            continue
        for entry in dropped:
            del whole[entry.name]
    adoption.readable = list(whole.values())
    return adoption


def _by_window(whole: Mapping[BatchName, Entry]) -> tuple[dict[str, list[Entry]], dict[str, list[Entry]]]:
    """Return the fragments and the checkpoints by window."""
    fragments: dict[str, list[Entry]] = {}
    checkpoints: dict[str, list[Entry]] = {}
    for name, entry in whole.items():
        if name.is_checkpoint:
            checkpoints.setdefault(name.window, []).append(entry)
        elif name.window:
            fragments.setdefault(name.window, []).append(entry)
    return fragments, checkpoints


def _is_whole(entries: list[Entry]) -> bool:
    return bool(entries) and {entry.fragment for entry in entries} == set(range(1, entries[0].fragments + 1))


def _size(entries: list[Entry]) -> int:
    return sum(entry.size_bytes for entry in entries)
