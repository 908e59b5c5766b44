"""Answers questions from the lake: DuckDB reads the Delta tables as Arrow data sets (`fleet/lake/data_set.py`).

DuckDB's own Delta extension is not used, because it must be downloaded at run time.

Questions may use the tables `samples`, `events`, `batches` and `vehicles` (see `fleet/lake/schema.py`) and the view
`samples_corrected` (see `fleet/lake/clocks.py`).  Times are in UTC.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa

from agent.errors import Permanent
from agent.system.times import utc_text
from fleet.lake.clocks import SAMPLES_CORRECTED
from fleet.lake.data_set import data_set
from fleet.lake.location import Location
from fleet.lake.opening import has_table
from fleet.lake.schema import SCHEMAS, VEHICLES

QUESTIONS: Mapping[str, str] = {
    "signals": """
        SELECT bus, signal, any_value(unit) AS unit, count(*) AS samples, count(DISTINCT vehicle) AS vehicles,
               min(value) AS "min", max(value) AS "max", min(time) AS first, max(time) AS last
        FROM samples WHERE $vehicle IS NULL OR vehicle = $vehicle
        GROUP BY bus, signal ORDER BY bus, signal LIMIT $limit""",
    "latest": """
        SELECT vehicle, bus, signal, source_address, max(time) AS time, arg_max(value, (time, seq, row)) AS value,
               any_value(unit) AS unit, nullif(arg_max(coalesce(text, ''), (time, seq, row)), '') AS text
        FROM samples WHERE $vehicle IS NULL OR vehicle = $vehicle
        GROUP BY vehicle, bus, signal, source_address ORDER BY vehicle, bus, signal, source_address LIMIT $limit""",
    "samples": """
        SELECT time, vehicle, campaign, bus, signal, source_address, value, unit, text FROM samples
        WHERE $vehicle IS NULL OR vehicle = $vehicle ORDER BY time DESC, seq DESC, row DESC LIMIT $limit""",
    "corrected": """
        SELECT time_corrected AS time, time_quality, vehicle, campaign, bus, signal, source_address, value, unit, text
        FROM samples_corrected
        WHERE $vehicle IS NULL OR vehicle = $vehicle ORDER BY time_corrected DESC, seq DESC, row DESC LIMIT $limit""",
    "events": """
        SELECT time, vehicle, kind, fields FROM events WHERE $vehicle IS NULL OR vehicle = $vehicle
        ORDER BY time DESC, seq DESC, row DESC LIMIT $limit""",
    "toggles": """
        WITH counts AS (
            SELECT time::DATE AS day, vehicle, fields->>'$.toggle' AS toggle, fields->>'$.variant' AS variant,
                   try_cast(fields->>'$.evaluations' AS BIGINT) AS evaluations
            FROM events WHERE kind = 'toggle_evaluations' AND ($vehicle IS NULL OR vehicle = $vehicle))
        SELECT day, toggle, variant, sum(evaluations)::BIGINT AS evaluations, count(DISTINCT vehicle) AS vehicles
        FROM counts GROUP BY day, toggle, variant ORDER BY day DESC, toggle, variant LIMIT $limit""",
    "batches": """
        SELECT vehicle, epoch, count(*) AS batches, min(seq) AS first, max(seq) AS last,
               max(seq) - count(DISTINCT seq) AS not_here, count(*) - count(DISTINCT seq) AS forked,
               sum(samples)::BIGINT AS samples, sum(events)::BIGINT AS events,
               sum(bytes)::BIGINT AS bytes, round(sum(bytes) / nullif(sum(samples), 0), 3) AS bytes_per_sample,
               max(received) AS last_received
        FROM batches WHERE $vehicle IS NULL OR vehicle = $vehicle
        GROUP BY vehicle, epoch ORDER BY last_received DESC LIMIT $limit""",
}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds the answer to a question: the names of the columns, and the rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def ask(lake: str | Location, question: str, *, vehicle: str | None = None, limit: int = 100) -> Answer:
    """Answer the question named `question` in QUESTIONS, with at most `limit` rows.

    `vehicle` restricts the answer to one vehicle.  Raises: Permanent if there is no lake.
    """
    return _to_answer(query(lake, QUESTIONS[question], {"vehicle": vehicle, "limit": limit}))


def ask_sql(lake: str | Location, sql: str) -> Answer:
    """Answer a question in DuckDB's SQL.

    Raises: Permanent if there is no lake, or if DuckDB refuses the question.
    """
    return _to_answer(query(lake, sql))


def query(lake: str | Location, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
    """Return the answer to `sql` as an Arrow table.  Raises: Permanent, as `ask_sql` does."""
    data = {name: data_set(lake, name) for name in SCHEMAS}
    # A lake of an earlier release, or of a receiver that has just started, has no table of vehicles yet.
    data["vehicles"] = data_set(lake, "vehicles") if has_table(lake, "vehicles") else VEHICLES.empty_table()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, dataset in data.items():
            connection.register(name, dataset)
        connection.execute(SAMPLES_CORRECTED)
        # A question reads the lake and nothing else: it opens no other file, writes none and loads no extension.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET lock_configuration = true")
        try:
            relation = connection.sql(sql, params=parameters)
            if relation is None:
                raise Permanent("The SQL text contains no query. Begin the query with SELECT, WITH or FROM.")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise Permanent(f"DuckDB could not run the query. Correct what DuckDB reports:\n{error}") from error


def times_of(column: pa.ChunkedArray) -> list[datetime | None]:
    """Return the times of a column in UTC.  `to_pylist` takes several times as long."""
    values = column.cast(pa.int64()).to_pylist()
    return [None if value is None else _EPOCH + timedelta(microseconds=value) for value in values]


def _to_answer(table: pa.Table) -> Answer:
    columns = [column.to_pylist() for column in table.columns]
    rows = (tuple(_plain(value) for value in row) for row in zip(*columns, strict=True))
    return Answer(tuple(table.column_names), tuple(rows))


def _plain(value: object) -> object:
    """Return `value` in a form that JSON can hold.

    Times become ISO 8601 text, and infinities and NaN become text as well.
    """
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
