"""Appends commits to the lake's three Delta tables, each commit exactly once.

Delta's *app transactions* make this possible.  Each append writes its rows and the pair (app id, commit number) in one
atomic step.  The commit number comes from the inbox and rises with each commit.  Before commit N, this module reads the
last commit number that the table has for the app id.  If that number is N or higher, the table has the rows of commit N
already, and nothing is appended.  If another process appends with the same app id between the check and the append,
Delta refuses the append.  A vehicle's sequence number cannot be the commit number, because batches arrive out of order.

A lake lies in a folder, or below a URL that the Delta library opens (s3://, abfss://, gs://, file://).  The library
gets the URL and the storage options unchanged.  An object store answers only when the data is durable.  In a local
folder the library does not call fsync.  This module therefore calls fsync before an append returns.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from agent.errors import Permanent, Transient
from agent.system.durable import fsync_directory
from fleet.lake.batch_key import BatchKey
from fleet.lake.location import Location
from fleet.lake.rows import BatchRows, table_of
from fleet.lake.schema import SCHEMAS

# Times and row numbers rise by small steps, so they are stored as deltas.  For a synthetic drive, this reduced all
# columns together from 6.3 to 2.3 bytes a sample.  Writing is also faster.
_RISING = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
_WRITER = WriterProperties(compression="ZSTD", compression_level=3, column_properties={"time": _RISING, "row": _RISING})
_PLAIN_WRITER = WriterProperties(compression="ZSTD", compression_level=3)


class Lake:
    """Holds the three tables of a lake, open for appending.  Only one thread may use a `Lake` at a time."""

    def __init__(self, lake: str | Location) -> None:
        location = Location.of(lake)
        self._tables = {name: _open_or_create(location, name, schema) for name, schema in SCHEMAS.items()}

    def landed(self, app_id: str) -> int:
        """Return the highest commit number of `app_id` that any table has, or 0 if no table has one."""
        return max(table.transaction_version(app_id) or 0 for table in self._tables.values())

    def known(self) -> list[BatchKey]:
        """Return the key of every batch in the lake.  Raises: Transient if the lake cannot be read."""
        columns = ["vehicle", "epoch", "seq", "digest"]
        batches = self._tables["batches"]
        try:
            table = batches.to_pyarrow_table(columns=columns)
        except (DeltaError, OSError) as error:
            raise Transient(
                f"The table {batches.table_uri} cannot be read ({error}). The receiver tries again; check the storage."
            ) from error
        keys = zip(*(table[name].to_pylist() for name in columns), strict=True)
        return [BatchKey(vehicle, epoch, seq, bytes.fromhex(digest)) for vehicle, epoch, seq, digest in keys]

    def stored(self, days: Mapping[BatchKey, date]) -> set[BatchKey]:
        """Return those of the given batches that the lake has.  `days` has the day of each batch.

        Raises: Transient if the lake cannot be read.
        """
        batches = self._tables["batches"]
        # Names and days are checked values of our own, without quotes.
        listed = {
            "date": sorted({f"DATE '{day}'" for day in days.values()}),
            "vehicle": sorted({f"'{key.vehicle}'" for key in days}),
            "digest": sorted({f"'{key.digest.hex()}'" for key in days}),
        }
        terms = " AND ".join(f"{name} IN ({', '.join(values)})" for name, values in listed.items())
        try:
            batches.update_incremental()
            found = QueryBuilder().register("t", batches).execute(f"SELECT digest FROM t WHERE {terms}")  # noqa: S608
            digests = {bytes.fromhex(digest) for digest in pa.table(found.read_all())["digest"].to_pylist()}
        except (DeltaError, OSError) as error:
            raise Transient(
                f"The table {batches.table_uri} cannot be read ({error}). The receiver tries again; check the storage."
            ) from error
        return {key for key in days if key.digest in digests}

    def append(self, name: str, app_id: str, number: int, batches: Sequence[BatchRows]) -> None:
        """Append the rows of `batches` to the table `name` as commit `number`, unless the table has this commit.

        Raises: Transient if the storage refuses.  Then call `append` again, in this process or after a restart.
        """
        rows = table_of(name, batches)
        # Without rows, the commit number need not be recorded, because a repetition of this commit has no rows either.
        if rows.num_rows == 0:
            return
        table = self._tables[name]
        try:
            table.update_incremental()
            if (table.transaction_version(app_id) or 0) >= number:
                # The commit was appended before a crash, but perhaps not forced to the disk.  Its files are not known
                # any more, so all files of the machine are forced to the disk.
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
            raise Transient(
                f"Commit {number} could not be appended to {table.table_uri} ({error}). "
                "The receiver tries again; check the storage."
            ) from error


def open_table(lake: str | Location, name: str) -> DeltaTable:
    """Open the table `name` of a lake, for reading or for compaction.

    Raises: Permanent if the table does not exist or cannot be opened.
    """
    location = Location.of(lake)
    try:
        return DeltaTable(location.table(name), storage_options=location.storage_options)
    except TableNotFoundError as error:
        raise Permanent(
            f"There is no table {name} in the lake {location.uri}. Check --lake, or run `fleet receive` to create it."
        ) from error
    except (DeltaError, OSError) as error:
        raise Permanent(
            f"The table {name} in the lake {location.uri} cannot be opened ({error}). Check the lake and its options."
        ) from error


def writer_properties(name: str) -> WriterProperties:
    """Return the compression and encoding for the files of the table `name`."""
    return _WRITER if name == "samples" else _PLAIN_WRITER


def _open_or_create(location: Location, name: str, schema: pa.Schema) -> DeltaTable:
    uri = location.table(name)
    try:
        table = DeltaTable.create(
            uri, schema, mode="ignore", partition_by=["date"], storage_options=location.storage_options
        )
    except (DeltaError, OSError) as error:
        raise Permanent(
            f"The table {uri} cannot be opened or created ({error}). Check --lake and the options of the lake."
        ) from error
    if [field.name for field in table.schema().fields] != schema.names:
        raise Permanent(
            f"The table {uri} has other columns than this release writes. Please use the release that made the lake, "
            "or give another --lake."
        )
    return table


def force_to_disk(table_uri: str, version: int) -> None:
    """Make the data files and the log entry of the Delta version `version` durable.

    For a table in an object store, do nothing.  Raises: OSError if a file cannot be read or synced.
    """
    location = urlsplit(table_uri)
    # An object store has already made the data durable when it answers.
    if location.scheme not in {"", "file"}:
        return
    folder = Path(unquote(location.path))
    entry = folder / "_delta_log" / f"{version:020}.json"
    # A text of a vehicle may hold U+2028, at which str.splitlines would cut a line of the log in two.
    actions = [json.loads(line) for line in entry.read_bytes().split(b"\n") if line]
    # Paths in the log are percent-encoded (Delta protocol, section Add File).
    files = [folder / unquote(action["add"]["path"]) for action in actions if "add" in action]
    for file in (*files, entry):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    for directory in {file.parent for file in (*files, entry)} | {folder}:
        fsync_directory(directory)
