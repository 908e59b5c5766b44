"""Opens the tables of a lake, creates them, and finds those that are missing."""

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from agent.errors import Permanent
from fleet.lake.location import Location
from fleet.lake.schema import SCHEMAS, STATISTICS, TABLES


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


def missing_tables(lake: str | Location) -> list[str]:
    """Return the names of the tables that the lake lacks, of those to which batches are appended.

    Raises: Permanent if the storage cannot be read, or if its options are wrong.
    """
    return [name for name in SCHEMAS if not has_table(lake, name)]


def has_table(lake: str | Location, name: str) -> bool:
    """Return whether the lake has the table `name`.  Raises: Permanent, as `missing_tables` does."""
    location = Location.of(lake)
    try:
        # `DeltaTable.is_deltatable` would stop all threads of the process until the object store has answered.
        DeltaTable(location.table(name), storage_options=location.storage_options)
    except TableNotFoundError:
        return False
    except (DeltaError, OSError) as error:
        raise Permanent(
            f"The lake {location.uri} cannot be opened ({error}). Check --lake and the options of the lake."
        ) from error
    return True


def open_or_create(location: Location, name: str) -> DeltaTable:
    """Open the table `name` of a lake, or create it with no rows.

    Raises: Permanent if the table cannot be opened or created, or has other columns than this release writes.
    """
    schema: pa.Schema = TABLES[name]
    uri = location.table(name)
    try:
        table = DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            partition_by=[schema.names[0]],
            configuration={"delta.dataSkippingStatsColumns": ",".join(STATISTICS[name])},
            storage_options=location.storage_options,
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
