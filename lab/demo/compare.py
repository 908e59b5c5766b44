"""Compares the samples in the lake with the samples that the oracle expects, as multisets.

Sets would not show a sample that the lake holds twice by mistake.  They would also merge two genuine samples that a
signal has at the same time.  DuckDB does the counting.
"""

from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from lab.demo.oracle import Expected

SCHEMA: Final = pa.schema(
    [
        ("campaign", pa.string()),
        ("bus", pa.string()),
        ("signal", pa.string()),
        ("time_us", pa.int64()),
        ("raw", pa.int64()),
        ("value", pa.float64()),
        ("text", pa.string()),
        ("unit", pa.string()),
        ("source_address", pa.int16()),
    ]
)

_LEFT: Final = """
create temp table only_expected as from expected except all from lake;
create temp table only_lake as from lake except all from expected;
create temp view sides as
select *, 'expected' as side from only_expected union all by name select *, 'lake' as side from only_lake
"""

# Rows that are on one side only are grouped by the columns that identify a sample.  If a group has equally many rows of
# both sides, their contents differ.  Surplus expected rows are missing in the lake; surplus lake rows are duplicates.
_KEYS: Final = """
create temp table keys as
select *, coalesce(len(wanted), 0) as n_wanted, coalesce(len(found), 0) as n_found from (
    select campaign, bus, source_address, signal, time_us,
           list(struct_pack(raw := raw, value := value, text := text, unit := unit))
               filter (side = 'expected') as wanted,
           list(struct_pack(raw := raw, value := value, text := text, unit := unit))
               filter (side = 'lake') as found
    from sides group by all
)
"""

_COUNTS: Final = """
select (select count(*) from expected), (select count(*) from lake),
       coalesce(sum(greatest(n_wanted - n_found, 0)), 0),
       coalesce(sum(greatest(n_found - n_wanted, 0)), 0),
       count(*) filter (n_wanted = n_found)
from keys
"""

_EXAMPLES: Final = """
select campaign, bus, source_address, signal, time_us, wanted, found from keys order by time_us limit 5
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Holds the counts of a comparison.

    All samples with the same campaign, bus, source address, signal and time form a group, usually of one sample.
    `missing` counts the expected samples that the lake lacks, and `duplicates` the samples that a group has in excess.
    `differing` counts the groups with the right number of samples but a wrong raw value, value, text or unit.
    `examples` describes up to five differences.
    """

    expected: int
    in_lake: int
    missing: int
    duplicates: int
    differing: int
    examples: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Return whether the lake holds exactly the expected samples."""
        return not (self.missing or self.duplicates or self.differing)


def compare(expected: Expected, samples: pa.Table) -> Comparison:
    """Compare the oracle's samples with `samples`, the content of the table `samples` in the lake."""
    wanted = pa.table(
        {name: pa.array(getattr(expected, name), SCHEMA.field(name).type) for name in SCHEMA.names}, schema=SCHEMA
    )
    found = pa.table(
        {
            name: samples[name].cast(SCHEMA.field(name).type)
            if name != "time_us"
            else samples["time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
            for name in SCHEMA.names
        },
        schema=SCHEMA,
    )
    with duckdb.connect() as database:
        database.register("expected", wanted)
        database.register("lake", found)
        database.execute(_LEFT)
        database.execute(_KEYS)
        counts = database.execute(_COUNTS).fetchone()
        assert counts is not None
        total, in_lake, missing, duplicates, differing = (int(count) for count in counts)
        examples = database.execute(_EXAMPLES).fetchall()
    return Comparison(
        total,
        in_lake,
        missing,
        duplicates,
        differing,
        tuple(_described(*example) for example in examples),
    )


def _described(
    campaign: str, bus: str, source_address: int | None, signal: str, t_us: int, wanted: object, found: object
) -> str:
    sender = "" if source_address is None else f" from {source_address}"
    return f"{bus} {signal}{sender} at {t_us} µs ({campaign}): expected {wanted}, found {found}"
