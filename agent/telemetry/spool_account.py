"""The account of a spool that no process uses, for `status`.  Touches the world, and changes nothing there.

Invariant: no lock is taken, nothing is recovered and no file made, so an agent that starts is not hindered.
"""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from agent.errors import Transient
from agent.telemetry.losses import Reason
from agent.telemetry.spool import NOTHING, Counts
from agent.telemetry.spool_files import DiskFiles, SpoolFolder
from agent.telemetry.spool_index import ACKNOWLEDGED, ADOPTED, Index


def counts_on_disk(folder: Path) -> Counts:
    """What the index of the spool in `folder` says.  Raises Transient where it cannot be read."""
    file = SpoolFolder(folder, DiskFiles()).index
    # Without a WAL the file is complete, and SQLite shall not make one; with one, that is read too.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        index = Index(sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True))
        try:
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
        finally:
            index.close()
    except (sqlite3.Error, TypeError, ValueError) as error:  # the latter: rows that are none of ours
        raise Transient(f"{file}: the index cannot be read ({error}); the agent mends it at its start") from error
