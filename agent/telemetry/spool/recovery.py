"""Making the spool's index and its files agree when it is opened.  Touches the world.

  1. A row whose file is missing or has another size: the loss (`corrupt`) goes to the ledger, the file to quarantine/.
  2. A file without a row, where the index is the one that was there before: an orphan of a power cut before the commit
     (its number will be used again) or before an unlink.  It is deleted.
  3. A file without a row, where the index is new because the old one was lost: it is taken in under its old epoch and
     number, because it may never have been sent.  A file that is not whole by the checksum in its name is lost by name.
     Of a window and its checkpoints only one is taken in, and the names say which (see `_adopt`): the receiver never
     gets both.
  4. Checkpoints whose window is not open in this process any more become ordinary batches; those whose bytes had to go
     are lost.
The content of batches that have a row is checked by SHA-256 whenever one is read, so nothing damaged is sent.  Checking
it here would read the whole backlog from flash before the first frame.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from agent.telemetry.spool.batch import Entry, adopted_entry, loss_of
from agent.telemetry.spool.catalogues import Carrier
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ADOPTED
from agent.telemetry.spool.names import BatchName, is_epoch, matches

CATALOGUES: Final = 32
"""Catalogues that are kept, of at most a batch's size each: one a campaign, and those that waiting batches need."""


@dataclass(slots=True)
class _Adoption:
    """The decision of a new index on each file that it finds."""

    readable: list[Entry] = field(default_factory=list)
    lost: list[tuple[Path, Entry]] = field(default_factory=list)
    needless: list[Path] = field(default_factory=list)


def reconcile(index: Index, folder: SpoolFolder, now_s: float, open_windows: Collection[str]) -> None:
    """Make index and files agree, and record in the ledger where they did not.

    `open_windows` are those that this process still collects: their checkpoints stay checkpoints.  Raises OSError and
    sqlite3.Error; ValueError, TypeError and OverflowError for a row that the spool never writes.
    """
    epoch = index.epoch
    if not is_epoch(epoch):
        raise sqlite3.DatabaseError(f"index has no epoch but {epoch!r}")
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
    promote(index, (entry for entry in index.checkpoints.all() if entry.window not in open_windows))
    if new:
        sent = [entry for entry in adoption.readable if not entry.waits]
        index.ledger.count(ADOPTED, batches=len(sent) + len(adoption.lost))
        for entry in adoption.readable:
            index.rows.add(entry, now_s)
        for name in earlier:
            index.ledger.add(Loss(Reason.INDEX_DAMAGED, epoch=name))
        index.set_recovered()
    index.catalogues.replace(kept)
    index.commit()
    folder.remove([*orphans, *adoption.needless])
    for path, _ in lost + adoption.lost:
        folder.quarantine(path, now_s)
    for name in earlier:
        folder.remove_epoch_if_empty(name)


def promote(index: Index, checkpoints: Iterable[Entry]) -> None:
    """Turn checkpoints into ordinary batches, or lose those whose bytes had to go.  Within a transaction."""
    for entry in checkpoints:
        if entry.withdrawn is None:
            index.ledger.count(ADOPTED, batches=1)
            index.checkpoints.promote(entry.row)
        else:
            lose(index, entry, entry.withdrawn)


def lose(index: Index, entry: Entry, reason: Reason, detail: str = "") -> None:
    """Remove a batch, and record its loss in the ledger.  Within a transaction."""
    if entry.waits:
        # The number belongs to another epoch, so the batch counts as adopted, like a checkpoint that is sent.
        index.ledger.count(ADOPTED, batches=1)
    index.ledger.unreport(entry.row)
    index.rows.remove(entry.row)
    index.ledger.add(loss_of(entry, reason, detail))


def _carriers(index: Index, folder: SpoolFolder, *, new: bool) -> tuple[list[Carrier], list[Path]]:
    """Return the catalogues that are here, and files that belong to none.  A new index takes in all that it finds."""
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
    """Decide what becomes of files that no index knows.

    A window that is whole by the names of its fragments replaces its checkpoints.  A window that is not whole and has
    checkpoints was never sent: the power went while its fragments were written, because a fragment is removed only
    after the removal of the checkpoints is durable.  Then whichever holds more bytes is kept, and the other is lost by
    name.
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
            # Nothing is lost with a checkpoint of a window that is here, whether the checkpoint is whole or not.
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
