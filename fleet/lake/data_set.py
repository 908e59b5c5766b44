"""Opens a table of the lake as an Arrow data set, from which DuckDB reads only the files and columns that it needs.

A data set knows the limits of some columns of each file, which the Delta log holds.  Arrow skips a file whose limits
exclude all rows that a question asks for.  This module works around two faults of the libraries:

    limits of values   The log holds null for an infinite limit, because JSON has no infinities.  Arrow concludes that
                       no row of the file matches a comparison, and a question loses all rows of the file
                       (https://github.com/delta-io/delta-rs/issues/1411).  A data set therefore has limits only of the
                       columns in STATISTICS, which are never infinite, even if another writer has made the table.
    reading ahead      The threads of Arrow read more than a question with LIMIT needs, and go on when it is answered.
                       The Delta library lets them read through objects of Python.  If the interpreter ends meanwhile,
                       these threads hang or crash it (https://github.com/apache/arrow/issues/50482).  For a lake in a
                       folder, Arrow reads the files by itself, so no thread needs the interpreter.  For a lake in an
                       object store, the program `fleet` exits without ending the interpreter (`fleet.__main__`).
"""

from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow.dataset import FileSystemDataset
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

from fleet.lake.location import Location
from fleet.lake.opening import open_table
from fleet.lake.schema import STATISTICS, TABLES


def data_set(lake: str | Location, name: str) -> FileSystemDataset:
    """Return the newest version of the table `name` as a data set.  A column that the table lacks reads as null.

    Raises: Permanent if the table does not exist or cannot be opened.
    """
    table = open_table(lake, name)
    schema = TABLES[name]
    # The Delta library derives limits for the columns of the schema that it is given, so it gets a part of the schema.
    limited = pa.schema([schema.field(column) for column in (schema.names[0], *STATISTICS[name])])
    files = table.to_pyarrow_dataset(filesystem=_file_system(table), schema=limited)
    return FileSystemDataset(list(files.get_fragments()), schema, files.format, files.filesystem)


def _file_system(table: DeltaTable) -> FileSystem | None:
    """Return Arrow's own file system for a table in a folder, or None for a table that only the Delta library reads."""
    location = urlsplit(table.table_uri)
    if location.scheme not in {"", "file"}:
        return None
    return SubTreeFileSystem(unquote(location.path), LocalFileSystem())
