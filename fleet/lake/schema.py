"""The three tables of the lake.  Pure.

    samples  one row for each value, in long form
    events   one row for each event
    batches  one row for each batch: what it held, and the readings of its clock

Invariant: rows keep the order of the batch, and (vehicle, epoch, seq, row) names each sample for ever, also after the
lake was compacted: two samples of one signal may well carry the same time.

The tables are partitioned by `date`, the UTC day on which the batch's window began.  One batch lies in one partition,
so a commit never scatters over more partitions than it has batches, whatever a vehicle's clock says.  Days are what
retention deletes and what questions ask for.
"""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

TIME: Final = pa.timestamp("us", tz="UTC")
DAY_US: Final = 86_400 * 1_000_000

_BATCH_COLUMNS: Final = [("date", pa.date32()), ("vehicle", pa.string()), ("epoch", pa.string()), ("seq", pa.int64())]

SAMPLES: Final = pa.schema(
    [
        *_BATCH_COLUMNS,
        ("row", pa.int32()),
        ("campaign", pa.string()),
        ("bus", pa.string()),
        ("signal", pa.string()),
        ("time", TIME),
        ("raw", pa.int64()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("text", pa.string()),
        # The J1939 address that sent the message; null on other buses.
        ("source_address", pa.int16()),
    ]
)
EVENTS: Final = pa.schema(
    [
        *_BATCH_COLUMNS,
        ("row", pa.int32()),
        ("time", TIME),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("fields", pa.string()),
    ]
)
BATCHES: Final = pa.schema(
    [
        *_BATCH_COLUMNS,
        ("lane", pa.string()),
        ("campaign", pa.string()),
        ("revision", pa.string()),
        ("start", TIME),
        ("end", TIME),
        ("samples", pa.int64()),
        ("events", pa.int64()),
        ("bytes", pa.int64()),
        ("sealed", TIME),
        ("received", TIME),
        ("clock", pa.string()),
        ("boot_id", pa.string()),
        ("clock_wall", TIME),
        ("clock_boottime_us", pa.int64()),
        ("replaces", pa.list_(pa.int64())),
    ]
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = {"samples": SAMPLES, "events": EVENTS, "batches": BATCHES}
"""The tables in the order in which a commit lands: a reader that finds a batch in `batches` finds its rows as well."""
