"""Defines the columns of the lake's tables.  Pure.

    samples  one row for each value of a signal
    events   one row for each event
    batches  one row for each batch, with counts, times and clock readings
    vehicles one row for each vehicle, for joins with the other tables

Invariant: (vehicle, epoch, seq, digest, row) identifies a sample for ever, even after compaction.  `row` is the index
of the sample in its batch, from 0.  The time cannot identify a sample, because two samples of a signal may have the
same time.  `digest` is the digest of the sealed batch in hex digits.  Without it, batches of a forked epoch would be
mixed (see fleet.lake.batch_key).

Samples, events and batches are partitioned by `date`, the UTC day on which the batch's window began.  A partition is a
day, because retention deletes whole days and most questions ask for days.  All rows of a batch lie in one partition,
even if the vehicle's clock was wrong.  A commit therefore never touches more partitions than it has batches.
"""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

TIME: Final = pa.timestamp("us", tz="UTC")
DAY_US: Final = 86_400 * 1_000_000

_BATCH_COLUMNS: Final = [
    ("date", pa.date32()),
    ("vehicle", pa.string()),
    ("epoch", pa.string()),
    ("seq", pa.int64()),
    ("digest", pa.string()),
]

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
        # The J1939 source address of the message's sender.  It is null on other buses.
        ("source_address", pa.int16()),
        # The number of the trigger of a condition-based campaign.  It is null in other campaigns.
        ("trigger", pa.int64()),
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
        # The id of the sealing key that opens the batch (fleet.state.sealing_keys).
        ("sealing_key", pa.string()),
        ("received", TIME),
        ("clock", pa.string()),
        ("boot_id", pa.string()),
        ("clock_wall", TIME),
        ("clock_boottime_us", pa.int64()),
        # The id of the window, which is the epoch of its checkpoints.  It is null if no checkpoints were stored.
        ("window", pa.string()),
    ]
)

SCHEMAS: Final[Mapping[str, pa.Schema]] = {"samples": SAMPLES, "events": EVENTS, "batches": BATCHES}
"""The tables in the order of appending.  `batches` is last, so a batch in it has all its samples and events."""

VEHICLES: Final = pa.schema(
    [
        # Each receiver updates the partitions of its own share, so two receivers never rewrite the same file.
        ("partition", pa.int32()),
        ("vehicle", pa.string()),
        ("brand", pa.string()),
        ("model", pa.string()),
        ("market", pa.string()),
        ("model_year", pa.int32()),
        # The version of the vehicle's software, by which a push can select vehicles, and the version of the agent.  The
        # vehicle reports both.  They are null before the first report.
        ("software", pa.string()),
        ("agent", pa.string()),
        ("revoked", pa.bool_()),
        ("certificate_expires", TIME),
        # When the record of the vehicle in the registry last changed.
        ("recorded", TIME),
    ]
)
TABLES: Final[Mapping[str, pa.Schema]] = {**SCHEMAS, "vehicles": VEHICLES}
"""All tables.  The first column of each is the column by which the table is partitioned."""

STATISTICS: Final[Mapping[str, tuple[str, ...]]] = {
    "samples": ("vehicle", "seq", "time"),
    "events": ("vehicle", "seq", "time"),
    "batches": ("vehicle", "seq", "start", "received"),
    "vehicles": ("vehicle",),
}
"""The columns whose least and greatest values the log of a table has for each file, so that readers skip files.

An open table keeps these values of all files in memory.  Columns that help no reader to skip files are left out.
"""
