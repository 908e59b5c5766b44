"""No question loses a row to the limits of a file: infinities, NaN, signed zeros, huge integers, nulls, long texts.

The oracle is Python, which compares each value by itself.
"""

import math
import operator
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from fleet.lake.data_set import data_set
from fleet.lake.query import ask_sql
from fleet.lake.schema import SAMPLES
from fleet.lake.tables import Lake

INF, NAN = math.inf, math.nan
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
# Each group becomes a file, so its least and greatest values are the limits of the file.
VALUES: list[list[float | None]] = [
    *[[2.5, INF], [-INF, 4.5], [-INF, INF, 0.25], [NAN, NAN], [NAN, 8.5], [8.5, 8.5], [-0.0], [0.0], [0.0, -0.0]],
    *[[None, 6.5], [None, None], [5e-324, -5e-324], [1.7e308, -1.7e308], [1.5, NAN, -INF, INF, None, -0.0]],
]
RAWS = [2**63 - 1, -(2**63), 2**53 + 1, 0]
# The library cuts the limits of texts at 64 characters.  The greatest character has no successor to round up to.
TEXTS = ["", "idle", "ü" * 70, "z" * 64 + "!", "z" * 64 + "~", "\U0010ffff" * 70, "a\u2028b", None]
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "<>": operator.ne,
}


def rows() -> list[list[dict[str, Any]]]:
    """Return the rows of each file."""
    files, number = [], 0
    for values in VALUES:
        file = []
        for value in values:
            file.append(
                {
                    "date": date(2026, 3, 1 + number % 2),
                    "vehicle": f"{number % 3}1c1a52b-3f0e-4f4e-9c39-0b8f0a3a7d1f",
                    "seq": RAWS[0] - number if number % 2 else number,
                    "row": number,
                    "time": BEGIN + timedelta(microseconds=number * 1_000_999),
                    "raw": RAWS[number % len(RAWS)],
                    "value": value,
                    "text": TEXTS[number % len(TEXTS)],
                    "source_address": None if number % 3 else number,
                }
            )
            number += 1
        files.append(file)
    return files


def key(value: Any) -> Any:
    """Return what SQL compares: in DuckDB, NaN equals NaN and is greater than every number."""
    return (math.isnan(value), 0.0 if math.isnan(value) else value) if isinstance(value, float) else value


def literal(value: Any) -> str:
    if isinstance(value, float):
        return f"'{value!r}'::DOUBLE"
    if isinstance(value, datetime):
        return f"'{value.isoformat()}'::TIMESTAMPTZ"
    return f"'{value}'" if isinstance(value, str) else str(value)


def answers(lake: str, questions: Iterable[str]) -> dict[str, list[int]]:
    """Return the rows that each condition finds.  All conditions are asked at once, because that is faster."""
    found: dict[str, list[int]] = {question: [] for question in questions}
    asked = list(found)
    parts = (f"SELECT {n} AS n, row FROM samples WHERE {question}" for n, question in enumerate(asked))
    for n, row in sorted(ask_sql(lake, " UNION ALL ".join(parts)).rows):
        found[asked[n]].append(row)
    return found


@pytest.fixture(params=["this release's", "another writer's"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a lake whose samples are `rows`.  Another writer gives limits of all columns to the files."""
    where = tmp_path / "a lake of 100% ümläuts"
    if request.param == "this release's":
        Lake(str(where))
    for file in rows():
        table = pa.Table.from_pylist(file, schema=SAMPLES)
        write_deltalake(str(where / "samples"), table, mode="append", partition_by=["date"])
    Lake(str(where))
    return str(where)


@pytest.mark.parametrize("compacted", [False, True])
def test_every_comparison_finds_every_row(lake: str, compacted: bool) -> None:
    if compacted:
        DeltaTable(f"{lake}/samples").optimize.compact()
    every = [row for file in rows() for row in file]
    right = {}
    for column in ("value", "raw", "text", "time", "vehicle", "seq", "source_address"):
        there = {key(row[column]): row[column] for row in every if row[column] is not None}
        for asked in [*there.values()][:: 1 if column in {"value", "text"} else 5]:
            for sign, compare in COMPARED.items():
                found = [r["row"] for r in every if r[column] is not None and compare(key(r[column]), key(asked))]
                right[f"{column} {sign} {literal(asked)}"] = sorted(found)
    assert answers(lake, right) == right


def test_other_questions_find_every_row(lake: str) -> None:
    questions: dict[str, Callable[[float | None], bool]] = {
        "value IS NULL": lambda value: value is None,
        "value IS NOT NULL": lambda value: value is not None,
        "isnan(value)": lambda value: value is not None and math.isnan(value),
        "isinf(value)": lambda value: value is not None and math.isinf(value),
        "isfinite(value)": lambda value: value is not None and math.isfinite(value),
        "value IN (8.5, 2.5)": lambda value: value in {8.5, 2.5},
        "value BETWEEN 0.1 AND 5": lambda value: value is not None and 0.1 <= value <= 5,
        "value < 0 OR value > 8": lambda value: value is not None and (value < 0 or not value <= 8),
        "NOT value >= 2.5": lambda value: value is not None and value < 2.5,
    }
    every = [row for file in rows() for row in file]
    right = {question: [row["row"] for row in every if holds(row["value"])] for question, holds in questions.items()}
    assert answers(lake, right) == right


def test_the_least_and_the_greatest_value_are_the_right_ones(lake: str) -> None:
    sql = "SELECT min(value), max(value), min(raw), max(raw), max(text), count(value), count(*), max(time) FROM samples"
    every = [row for file in rows() for row in file]
    values = [row["value"] for row in every if row["value"] is not None]
    latest = max(row["time"] for row in every).strftime("%Y-%m-%d %H:%M:%S.%fZ")
    (found,) = ask_sql(lake, sql).rows
    assert found == ("-inf", "nan", RAWS[1], RAWS[0], TEXTS[5], len(values), len(every), latest)


def test_files_outside_of_a_question_are_not_read(lake: str) -> None:
    """The limits of day, vehicle, number and time still spare files."""
    found = [str(each.partition_expression) for each in data_set(lake, "samples").get_fragments()]
    assert len(found) > len(VALUES)
    for column in ("vehicle", "seq", "time"):
        assert all(f"({column} >= " in each and f"({column} <= " in each for each in found)
    assert not any("value" in each for each in found)
    damaged = next(iter(data_set(lake, "samples").get_fragments())).path
    (Path(lake) / "samples" / damaged).write_text("not Parquet")
    other = "2026-03-01" if "2026-03-02" in damaged else "2026-03-02"
    assert ask_sql(lake, f"SELECT count(*) > 0 FROM samples WHERE date = '{other}'").rows == ((True,),)
