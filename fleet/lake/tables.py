"""The lake: three Delta tables, to which each commit number is appended exactly once.

Delta's *app transactions* keep the promise.  Each append states (app id, version N) in the same atomic commit as its
rows, and a table that has version N or more for that app id has those rows.  The check is made on the handle that then
commits, so another process cannot slip in between: Delta refuses the later of two concurrent appends of one app id.
N is the inbox's commit number and never a vehicle's sequence number, because batches arrive out of order.

A lake lies in a folder or below a URL that the Delta library opens (s3://, abfss://, gs://, file://); the library gets
URL and storage options unchanged.  An object store answers when it holds the data.  On a local folder the Delta library
does not fsync, so this module does, before a vehicle hears that a batch is stored.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from agent.errors import Permanent, Transient
from agent.system.durable import fsync_directory
from fleet.lake.batch_key import BatchKey
from fleet.lake.location import Location
from fleet.lake.opened_batch import OpenedBatch
from fleet.lake.rows import batch_rows, event_rows, sample_rows
from fleet.lake.schema import SCHEMAS

_ROWS: Mapping[str, Callable[[Sequence[OpenedBatch]], pa.Table]] = {
    "samples": sample_rows,
    "events": event_rows,
    "batches": batch_rows,
}

# Times and row numbers rise by small steps.  As deltas they take a third of what plain columns take (2.3 against 6.3
# bytes a sample for all columns of a synthetic drive), and they are written faster.
_RISING = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
_WRITER = WriterProperties(compression="ZSTD", compression_level=3, column_properties={"time": _RISING, "row": _RISING})
_PLAIN_WRITER = WriterProperties(compression="ZSTD", compression_level=3)


class Lake:
    """The tables of a lake, open for appending.  One thread uses them at a time."""

    def __init__(self, lake: str | Location) -> None:
        location = Location.of(lake)
        self._tables = {name: _open_or_create(location, name, schema) for name, schema in SCHEMAS.items()}

    def landed(self, app_id: str) -> int:
        """Return the highest commit number of `app_id` that any table has; 0 where none has one."""
        return max(table.transaction_version(app_id) or 0 for table in self._tables.values())

    def known(self) -> list[BatchKey]:
        """Return the key of every batch in the lake.  Raises: Transient where the lake cannot be read."""
        columns = ["vehicle", "epoch", "seq"]
        batches = self._tables["batches"]
        try:
            table = batches.to_pyarrow_table(columns=columns)
        except (DeltaError, OSError) as error:
            raise Transient(f"cannot read {batches.table_uri}: {error}") from error
        return [BatchKey(*key) for key in zip(*(table[name].to_pylist() for name in columns), strict=True)]

    def append(self, name: str, app_id: str, number: int, batches: Sequence[OpenedBatch]) -> None:
        """Append commit `number` to table `name`, unless the table has it already.

        Raises: Transient where the store refuses: call again, in this process or the next.
        """
        rows = _ROWS[name](batches)
        # A table that gets no rows need not know the commit: repeating the commit appends nothing either.
        if rows.num_rows == 0:
            return
        table = self._tables[name]
        try:
            table.update_incremental()
            if (table.transaction_version(app_id) or 0) >= number:
                # The commit landed before a crash and was perhaps not forced to the disk.  Which files it wrote is not
                # known any more, so everything is.
                os.sync()
                return
            write_deltalake(
                table,
                rows,
                mode="append",
                writer_properties=writer_properties(name),
                commit_properties=CommitProperties(app_transactions=[Transaction(app_id, number)]),
            )
            force_to_disk(table.table_uri, table.version())
        except (DeltaError, OSError) as error:
            raise Transient(f"cannot append to {table.table_uri}: {error}") from error


def open_table(lake: str | Location, name: str) -> DeltaTable:
    """Open table `name` of a lake, for reading and for compaction.  Raises: Permanent where it does not exist."""
    location = Location.of(lake)
    try:
        return DeltaTable(location.table(name), storage_options=location.storage_options)
    except TableNotFoundError as error:
        raise Permanent(f"no table {name} in {location.uri}: `fleet receive` creates it") from error
    except (DeltaError, OSError) as error:
        raise Permanent(f"cannot open table {name} in {location.uri}: {error}") from error


def writer_properties(name: str) -> WriterProperties:
    """Return how the files of table `name` are written."""
    return _WRITER if name == "samples" else _PLAIN_WRITER


def _open_or_create(location: Location, name: str, schema: pa.Schema) -> DeltaTable:
    uri = location.table(name)
    try:
        table = DeltaTable.create(
            uri, schema, mode="ignore", partition_by=["date"], storage_options=location.storage_options
        )
    except (DeltaError, OSError) as error:
        raise Permanent(f"cannot open or create the table {uri}: {error}") from error
    if [field.name for field in table.schema().fields] != schema.names:
        raise Permanent(
            f"the table {uri} has other columns than this release writes: use the release that made the lake, "
            "or give another --lake"
        )
    return table


def force_to_disk(table_uri: str, version: int) -> None:
    """Make the data files and the log entry of commit `version` durable.  Raises: OSError."""
    location = urlsplit(table_uri)
    # An object store has made the data durable when it answers.
    if location.scheme not in {"", "file"}:
        return
    folder = Path(unquote(location.path))
    entry = folder / "_delta_log" / f"{version:020}.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    # Paths in the log are percent-encoded (Delta protocol, section Add File).
    files = [folder / unquote(action["add"]["path"]) for action in actions if "add" in action]
    for file in (*files, entry):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    for directory in {file.parent for file in (*files, entry)} | {folder}:
        fsync_directory(directory)
