"""Making the spool's index and its files agree when it is opened.  Touches the world.

  1. A row without its file, or with one of another size: `corrupt` goes to the ledger, the file to quarantine/.
  2. A file without a row: in an index that is new (see agent.telemetry.spool.spool) it is taken in again under its
     old epoch and number, for it may never have been sent; otherwise it is an orphan of a cut before the commit (its
     number will be used again) or before an unlink, and is deleted.  Where the cut that cost the index also cut short
     the file that was being written, that is taken in as well: no receiver can open it or knows whose it is, so
     nobody answers for it, and age or quota evict it by name.  Nor can it be told then which parts a window's batch
     had replaced: where both lie here, both are sent, and the receiver stores each sample once (docs/decisions/0011).
  3. Provisional batches: the window that they are of is gone with the process, so they become ordinary ones; those
     whose bytes had to go are lost.
Content is checked by SHA-256 whenever a batch is read, so nothing damaged is sent; checking it at the start would
read the whole backlog from flash before the first frame.
"""

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Final

from agent.telemetry.losses import Loss, Reason
from agent.telemetry.spool.batch import MAX_PRIORITY, Draft, Entry, entry_of, loss_of, replaced_by
from agent.telemetry.spool.catalogues import Carrier
from agent.telemetry.spool.files import BatchName, SpoolFolder, is_epoch
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ADOPTED

CATALOGUES: Final = 32
"""Kept, of at most a batch's size each: one a campaign, and those of campaigns whose batches still wait."""


def reconcile(index: Index, folder: SpoolFolder, now_s: float) -> None:
    """Make them agree, and say in the ledger where they did not.

    Raises OSError and sqlite3.Error; ValueError, TypeError and OverflowError where a row cannot be one of ours.
    """
    epoch = index.epoch
    if not is_epoch(epoch):
        raise sqlite3.DatabaseError(f"index has no epoch but {epoch!r}")
    folder.prepare_epoch(epoch)
    found = folder.batches()
    lost: list[Entry] = []
    last_seq = 0
    for entry in index.all():
        if entry.epoch == epoch:
            last_seq = max(last_seq, entry.seq)
        if entry.withdrawn is None and found.pop(path_of(folder, entry), (None, None))[1] != entry.size_bytes:
            lost.append(entry)
    new = not index.recovered()
    adopted = [_adopted(folder, path, name) for path, (name, _) in sorted(found.items())] if new else []
    readable = [entry for entry in adopted if entry.size_bytes]
    lost += [entry for entry in adopted if not entry.size_bytes]
    earlier = sorted(set(folder.epochs()) - {epoch})
    kept, orphans = _carriers(index, folder, new=new)
    index.check_rows()
    index.begin()
    index.count_usage()
    index.set_next_seq(max(index.next_seq, last_seq + 1))
    for entry in lost:
        lose(index, entry, Reason.CORRUPT)
    promote(index, index.provisional())
    if new:
        index.ledger.count(ADOPTED, batches=len(adopted))
        for entry in readable:
            index.add(entry, now_s)
        for name in earlier:
            index.ledger.add(Loss(Reason.INDEX_DAMAGED, epoch=name))
        index.set_recovered()
    index.catalogues.replace_all(kept)
    index.commit()
    folder.remove(orphans)
    for entry in lost:
        folder.quarantine(path_of(folder, entry), now_s)
    folder.remove(found.keys() - {path_of(folder, entry) for entry in readable})
    for name in earlier:
        folder.remove_epoch_if_empty(name)


def promote(index: Index, entries: list[Entry]) -> None:
    """Provisional batches become ordinary ones, or lost where their bytes had to go.  Within a transaction."""
    for entry in entries:
        if entry.withdrawn is None:
            index.promote(entry.position)
        else:
            lose(index, entry, entry.withdrawn)


def lose(index: Index, entry: Entry, reason: Reason, detail: str = "") -> None:
    """A stored batch is lost, and the ledger says so.  Within a transaction."""
    index.ledger.unreport(entry.position)
    index.remove(entry.position)
    index.ledger.add(loss_of(entry, reason, detail))
    for explanation in replaced_by(entry):
        index.ledger.add_explanation(explanation)


def path_of(folder: SpoolFolder, entry: Entry) -> Path:
    """Where the sealed bytes of a batch lie."""
    return folder.path(name_of(entry))


def name_of(entry: Entry) -> BatchName:
    """What the path of a batch says."""
    return BatchName(entry.epoch, entry.seq, entry.lane, entry.priority)


def _carriers(index: Index, folder: SpoolFolder, *, new: bool) -> tuple[list[Carrier], list[Path]]:
    """Which catalogues are here, and files that belong to none.  A new index takes in all that it finds."""
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


def _adopted(folder: SpoolFolder, path: Path, name: BatchName) -> Entry:
    """The row that a file without index gets; of size 0 where it cannot be read."""
    try:
        content = folder.read(path)
    except OSError:
        content = b""
    draft = Draft(name.lane, min(name.priority, MAX_PRIORITY), "", lambda _: content)
    return entry_of(name.epoch, name.seq, draft, content)
