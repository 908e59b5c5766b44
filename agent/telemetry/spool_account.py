"""The account of a spool that no process uses, for `status`.  Touches the world, and changes nothing there.

Invariant: no lock is taken, nothing is recovered and no file made, so an agent that starts is not hindered.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from agent.errors import Transient
from agent.formats.ledger import Record, Span, State, explain, ranges
from agent.telemetry.losses import Loss, Reason
from agent.telemetry.spool import NOTHING, Counts
from agent.telemetry.spool_files import DiskFiles, SpoolFolder
from agent.telemetry.spool_index import ACKNOWLEDGED, ADOPTED, Index


def counts_on_disk(folder: Path) -> Counts:
    """What the index of the spool in `folder` says.  Raises Transient where it cannot be read."""
    with _reading(folder) as index:
        totals = index.totals()
        return Counts(
            epoch=index.epoch(),
            next_seq=index.next_seq(),
            lanes=index.usage(),
            oldest_stored_at_s=index.oldest_stored_at_s(),
            acknowledged=totals.pop(ACKNOWLEDGED, NOTHING).batches,
            adopted=totals.pop(ADOPTED, NOTHING).batches,
            lost={Reason(name): total for name, total in totals.items()},
            unreported=index.unreported(),
        )


def ledger_on_disk(folder: Path) -> dict[str, list[Span]]:
    """By epoch, every sequence number of the spool in `folder`: waiting, lost, or (`stored`) delivered.

    Also while an agent runs.  Of epochs before this one only what waits and what is recorded as lost is known; of very
    many losses the oldest records are gone (spool_index.MAX_TOLD).  Raises Transient where it cannot be read.
    """
    with _reading(folder) as index:
        current, made = index.epoch(), index.next_seq() - 1
        waiting: dict[str, list[int]] = {current: []}
        for entry in index.all():
            waiting.setdefault(entry.epoch, []).append(entry.seq)
        losses = index.ledger()
    found = {}
    for epoch in {*waiting, *(loss.epoch for loss in losses if loss.epoch)}:
        records = [record_of(loss) for loss in losses if loss.epoch == epoch]
        seqs = waiting.get(epoch, [])
        last = made if epoch == current else max([*seqs, *(record.last_seq or 0 for record in records)])
        spans = explain(last, {State.WAITING: ranges(seqs)}, records, rest=State.STORED)
        found[epoch] = [span for span in spans if epoch == current or span.state is not State.STORED]
    return found


def record_of(loss: Loss) -> Record:
    """What a loss says of sequence numbers."""
    lane = None if loss.lane is None else loss.lane.label
    times = loss.first_t_us, loss.last_t_us
    return Record(loss.reason.value, lane, loss.batches, loss.samples, loss.first_seq, loss.last_seq, *times)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[Index]:
    """The index of the spool in `folder`.  Raises Transient where it, or what is read from it, makes no sense."""
    file = SpoolFolder(folder, DiskFiles()).index
    # Without a WAL the file is complete, and SQLite shall not make one; with one, that is read too.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True)
        index = Index(connection)
        try:
            connection.execute("BEGIN")  # one state of it, whatever an agent writes meanwhile
            yield index
        finally:
            index.close()
    except (sqlite3.Error, TypeError, ValueError) as error:  # the latter: rows that are none of ours
        raise Transient(f"{file}: the index cannot be read ({error}); the agent mends it at its start") from error
