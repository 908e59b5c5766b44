"""Compacts a lake: joins small files, deletes old samples and events, and deletes files that the tables no longer use.

Invariant: the lake remembers every batch that it ever stored, even if the batch's samples were deleted.  The table
`batches` and the loss events are the ledger and hold no measured value, so retention never deletes their rows.

The Delta log keeps the commit numbers of the receivers, so each batch is still appended exactly once.

Compaction may run while receivers run, because they only append, and an append conflicts with no step of a compaction.
Two compactions at the same time conflict, and the later one tries again.  In a local folder, new files are forced to
the disk before old files are deleted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, DeltaError

from agent.errors import Transient
from fleet.lake.force_to_disk import force_to_disk
from fleet.lake.location import Location
from fleet.lake.opening import has_table, open_table
from fleet.lake.retention import Retention
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import writer_properties

TRIES: Final = 5
_PAUSE_S: Final = 1.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Work:
    """Holds the settings of one compaction.

    Small files are joined into files of at most some `target_bytes`.  Files that left the table more than `unneeded_h`
    hours ago, for example because they were joined, are deleted.  With `dry_run`, nothing is changed.
    """

    target_bytes: int
    unneeded_h: int
    retention: Retention | None
    dry_run: bool


def compact(lake: str | Location, work: Work, tell: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Compact the lake, and return a report for each table.  With `dry_run`, only report the work to do.

    `tell` is called with a line of progress before each table.  In the report, `files_vacuumed` also counts files that
    an earlier run has deleted.

    Raises: Permanent if there is no lake; Transient if the storage refuses, or if each of TRIES tries conflicts with
    another compaction.
    """
    tables = {name: open_table(lake, name) for name in SCHEMAS}
    if work.retention is not None and not work.dry_run:
        # The note is written before rows are deleted, so that a crash in between leaves no missing rows without a note.
        _note(tables["batches"], work.retention)
    if has_table(lake, "vehicles"):
        tables["vehicles"] = open_table(lake, "vehicles")
    return [_table(table, name, work, tell) for name, table in tables.items()]


def _note(batches: DeltaTable, retention: Retention) -> None:
    """Note in the table `batches` which days the rule deletes from the other tables (fleet.lake.retention)."""

    def note() -> None:
        new = [each for each in retention.notes() if (batches.transaction_version(each.app_id) or 0) < each.version]
        if new:
            batches.create_write_transaction(
                [], "append", batches.schema(), ["date"], commit_properties=CommitProperties(app_transactions=new)
            )
            batches.update_incremental()

    try:
        _again(batches, note)
    except (DeltaError, OSError) as error:
        raise Transient(
            f"The table {batches.table_uri} could not be written ({error}). Check the storage and try again."
        ) from error


def _table(table: DeltaTable, name: str, work: Work, tell: Callable[[str], None]) -> dict[str, Any]:
    files, size = _files(table)
    tell(f"table {name}: {files:,} files")
    predicate = None if work.retention is None else work.retention.predicate(name)
    report = {"table": name, "files_before": files, "bytes_before": size, "dry_run": work.dry_run}
    try:
        if work.dry_run:
            rows = 0 if predicate is None else _count(table, predicate)
            unneeded = table.vacuum(work.unneeded_h, dry_run=True, enforce_retention_duration=False)
            small = _compactable(table, work.target_bytes)
            return report | {"rows_deleted": rows, "files_compacted": small, "files_vacuumed": len(unneeded)}
        rows = 0 if predicate is None else _delete(table, name, predicate)
        compacted = _optimise(table, name, work.target_bytes)
        # By default the library refuses to delete files that left the table less than a week ago.  Here the operator
        # decides (--unneeded-hours).
        unneeded = table.vacuum(work.unneeded_h, dry_run=False, enforce_retention_duration=False)
        table.update_incremental()
    except CommitFailedError as error:
        raise Transient(
            f"The table {table.table_uri} is being compacted by another process ({error}). Try again later."
        ) from error
    except (DeltaError, OSError) as error:
        raise Transient(
            f"The table {table.table_uri} could not be compacted ({error}). Check the storage and try again."
        ) from error
    files, size = _files(table)
    done = {"rows_deleted": rows, "files_compacted": compacted, "files_vacuumed": len(unneeded)}
    return report | done | {"files_after": files, "bytes_after": size}


def _delete(table: DeltaTable, name: str, predicate: str) -> int:
    metrics = _again(table, lambda: table.delete(predicate, writer_properties=writer_properties(name)))
    return int(metrics["num_deleted_rows"] or 0)


def _optimise(table: DeltaTable, name: str, target_bytes: int) -> int:
    def optimise() -> dict[str, Any]:
        return table.optimize.compact(target_size=target_bytes, writer_properties=writer_properties(name))

    metrics = _again(table, optimise)
    return int(metrics["numFilesRemoved"])


def _again(table: DeltaTable, step: Callable[[], _T]) -> _T:
    """Run `step`, make its result durable, and return the result.

    If another process commits before `step` does, repeat `step` on the newest version of the table.

    Raises: CommitFailedError if the step fails TRIES times.
    """
    for attempt in range(TRIES):
        before = table.version()
        try:
            result = step()
            # If there was nothing to do, the step makes no new version.
            if table.version() != before:
                force_to_disk(table.table_uri, table.version())
            return result
        except CommitFailedError:
            if attempt == TRIES - 1:
                raise
            time.sleep(_PAUSE_S * attempt)
            table.update_incremental()
    raise AssertionError("the last attempt returns or raises")


def _count(table: DeltaTable, predicate: str) -> int:
    question = f"SELECT count(*) AS rows FROM t WHERE {predicate}"  # noqa: S608 (quoted by Retention.predicate)
    found = QueryBuilder().register("t", table).execute(question)
    return int(pa.table(found.read_all())["rows"][0].as_py())


def _files(table: DeltaTable) -> tuple[int, int]:
    """Return the number of files of the newest version, and the sum of their sizes in bytes."""
    sizes = _sizes(table)["size_bytes"].to_pylist()
    return len(sizes), sum(sizes)


def _compactable(table: DeltaTable, target_bytes: int) -> int:
    """Return the number of files that can be joined.

    A file can be joined if it is smaller than `target_bytes` and its partition has at least one other such file.
    """
    by_partition: dict[object, int] = {}
    actions = _sizes(table)
    (column,) = table.metadata().partition_columns
    for value, size in zip(actions[f"partition.{column}"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True):
        by_partition[value] = by_partition.get(value, 0) + (size < target_bytes)
    return sum(count for count in by_partition.values() if count > 1)


def _sizes(table: DeltaTable) -> pa.Table:
    return pa.table(table.get_add_actions(flatten=True))
