"""Reads from a spool's index what became of every sequence number.

Invariant: reading does not recover the spool.  If the spool was closed normally, reading also takes no lock and creates
no file.  An agent can therefore start meanwhile.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from agent.errors import Transient
from agent.formats.topics import Lane
from agent.formats.up.ledger import Record, Span, State, explain, ranges
from agent.formats.up.losses import Reason
from agent.system.durable import Disk
from agent.telemetry.losses import Loss
from agent.telemetry.spool.folder import SpoolFolder
from agent.telemetry.spool.index import Index
from agent.telemetry.spool.ledger import ACKNOWLEDGED, ADOPTED, Total

NOTHING: Final = Total(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts what became of a spool's batches.

    Every batch is acknowledged, waiting or lost.  These three counts include two kinds of batches:

    - Ordinary batches have the sequence numbers of this epoch that are below `next_seq`.
    - Adopted batches have numbers of other epochs, and `adopted` counts them.  They were found after the index was
      lost, or they are checkpoints whose window never closed.

    `lanes` has the number and the bytes of the waiting batches of each lane.  `checkpoints` has the number and the
    bytes of the checkpoints of open windows.  `in_memory` has the number and the bytes of the waiting batches whose
    bytes are only in memory; `lanes` has these batches with 0 bytes.  `acknowledged` and `lost` (by reason) are running
    totals since this epoch began.  `unreported` counts the loss records that still have to be put into a batch of
    events.
    """

    epoch: str
    next_seq: int
    lanes: Mapping[Lane, tuple[int, int]]
    checkpoints: tuple[int, int]
    oldest_stored_wall_us: int | None
    acknowledged: int
    adopted: int
    lost: Mapping[Reason, Total]
    unreported: int
    in_memory: tuple[int, int] = (0, 0)

    @property
    def batches(self) -> int:
        """Return how many batches wait to be sent, in all lanes."""
        return sum(batches for batches, _ in self.lanes.values())

    @property
    def size_bytes(self) -> int:
        """Return the size of the waiting batches in bytes."""
        return sum(size for _, size in self.lanes.values()) + self.in_memory[1]


def counts(index: Index) -> Counts:
    """Return the counts of the spool that `index` describes.  Raises sqlite3.Error."""
    totals = index.ledger.totals()
    return Counts(
        epoch=index.epoch,
        next_seq=index.next_seq,
        lanes=index.usage.lanes(),
        checkpoints=index.usage.checkpoints(),
        oldest_stored_wall_us=index.usage.oldest_stored_wall_us(),
        acknowledged=totals.pop(ACKNOWLEDGED, NOTHING).batches,
        adopted=totals.pop(ADOPTED, NOTHING).batches,
        lost={Reason(name): total for name, total in totals.items()},
        unreported=index.ledger.unreported(),
    )


def counts_on_disk(folder: Path) -> Counts:
    """Return the counts of the spool in `folder`.  Raises Transient if the index cannot be read."""
    with _reading(folder) as index:
        return counts(index)


def ledger_on_disk(folder: Path) -> dict[str, list[Span]]:
    """Return what became of every sequence number of the spool in `folder`, by epoch.

    A number of the current epoch is waiting, lost or stored.  Stored means that the fleet acknowledged the batch.  For
    earlier epochs, only waiting and lost numbers are returned.

    Of the loss records that the fleet has received, the ledger keeps only the newest MAX_REPORTED.  If the record of a
    lost number is no longer kept, that number appears as stored.

    An agent may use the spool meanwhile.  Raises Transient if the index cannot be read.
    """
    with _reading(folder) as index:
        current, made = index.epoch, index.next_seq - 1
        waiting: dict[str, list[int]] = {current: []}
        for entry in index.rows.all():
            if not entry.waits:
                waiting.setdefault(entry.epoch, []).append(entry.seq)
        losses = index.ledger.all()
    found = {}
    for epoch in {*waiting, *(loss.epoch for loss in losses if loss.epoch)}:
        records = [record_of(loss) for loss in losses if loss.epoch == epoch]
        seqs = waiting.get(epoch, [])
        last = made if epoch == current else max([*seqs, *(record.last_seq or 0 for record in records)])
        spans = explain(last, {State.WAITING: ranges(seqs)}, records, rest=State.STORED)
        found[epoch] = [span for span in spans if epoch == current or span.state is not State.STORED]
    return found


def record_of(loss: Loss) -> Record:
    """Convert a loss to a `Record`, from which `explain` learns which sequence numbers are lost."""
    lane = None if loss.lane is None else loss.lane.label
    times = loss.first_t_us, loss.last_t_us
    return Record(loss.reason.value, lane, loss.batches, loss.samples, loss.first_seq, loss.last_seq, *times)


def spool_status(counts: Counts) -> dict[str, Any]:
    """Return `counts` as plain values for JSON, as `/status` and `headunit-agent status` show them.

    Every sequence number below `next_seq` is acknowledged, waiting or lost.  `adopted` counts batches with numbers of
    other epochs; `acknowledged`, `waiting` and `lost` include these batches.  `checkpoints` counts the checkpoints of
    open windows.  A checkpoint uses no sequence number of the spool's epoch.  `in_memory` counts the waiting batches
    that the disk has no room for.  `oldest_stored_at` is the time that the wall clock showed when the oldest batch was
    stored, right or wrong.
    """
    return {
        "epoch": counts.epoch,
        "next_seq": counts.next_seq,
        "acknowledged": counts.acknowledged,
        "waiting": counts.batches,
        "waiting_bytes": counts.size_bytes,
        "in_memory": counts.in_memory[0],
        "in_memory_bytes": counts.in_memory[1],
        "adopted": counts.adopted,
        "checkpoints": counts.checkpoints[0],
        "checkpoints_bytes": counts.checkpoints[1],
        "lanes": {lane.label: {"batches": n, "bytes": size} for lane, (n, size) in counts.lanes.items()},
        "oldest_stored_at": None
        if counts.oldest_stored_wall_us is None
        else datetime.fromtimestamp(counts.oldest_stored_wall_us / 1e6, UTC).isoformat(timespec="seconds"),
        "lost": {
            str(reason): {"batches": total.batches, "samples": total.samples, "frames": total.frames}
            for reason, total in counts.lost.items()
        },
    }


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[Index]:
    """Open the index of the spool in `folder` for reading.  Raises Transient if the index or a row cannot be read."""
    file = SpoolFolder(folder, Disk()).index
    # Without a WAL, the database file is complete, and `immutable` keeps SQLite from creating a WAL.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True)
        index = Index(connection)
        try:
            connection.execute("BEGIN")  # every statement sees one state, whatever an agent writes meanwhile
            yield index
        finally:
            index.close()
    except (
        sqlite3.Error,
        TypeError,
        ValueError,
    ) as error:  # a row that the spool never writes raises TypeError or ValueError
        raise Transient(
            f"The spool's index cannot be read ({file}: {error}). If the file is damaged, start the agent to repair it."
        ) from error
