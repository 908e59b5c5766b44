"""Samples that came twice, in a window's batch and in one of its parts: which of the later batch are new.

Two samples are the same where signal, sender, time and raw value are; the rest follows from these.  A signal may well
have the same value twice at one moment, so they are counted: of n in a batch, those are new that exceed what the others
have.  Times alone would not do: parts end between frames, not between moments, and a clock may step back.
"""

from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fleet.lake.rows import SAMPLES

IDENTITY: Final = pa.schema([SAMPLES.field(name) for name in ("bus", "signal", "source_address", "time", "raw")])
"""The columns that make a sample, within one campaign of one vehicle."""
DAYS: Final = 2
"""So far apart the days of a window's batches and parts lie at most, counted from when a batch begins and ends: a
window is open for one day."""

_NUMBERED: Final = "SELECT *, row_number() OVER (PARTITION BY bus, signal, source_address, time, raw) AS nth FROM"
_NEW: Final = f"""
    SELECT rows.row FROM ({_NUMBERED} arrived) AS rows
    ANTI JOIN ({_NUMBERED} present) AS others
    ON rows.bus IS NOT DISTINCT FROM others.bus AND rows.signal = others.signal
    AND rows.source_address IS NOT DISTINCT FROM others.source_address
    AND rows.time = others.time AND rows.raw = others.raw AND rows.nth = others.nth"""  # noqa: S608 (constants)


def without(rows: pa.Table, others: pa.Table) -> pa.Table:
    """Of `rows` of one batch (as in SAMPLES) those that `others` (as in IDENTITY) have not, in their order."""
    with duckdb.connect() as connection:
        connection.register("arrived", rows.select(["row", *IDENTITY.names]))
        connection.register("present", others)
        new = connection.sql(_NEW).to_arrow_table()["row"]
    return rows.filter(pc.is_in(rows["row"], value_set=new.combine_chunks()))
