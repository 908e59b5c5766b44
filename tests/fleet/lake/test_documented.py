"""docs/lake.md names every table and column, and what it says about reading is true."""

import re
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable

from fleet.lake.compact import Work, compact
from fleet.lake.rows import rows_of
from fleet.lake.schema import TABLES
from fleet.lake.tables import Lake
from tests.fleet.lake.test_ledger import batch

TEXT = (Path(__file__).parents[3] / "docs" / "lake.md").read_text()
COMMON = {"date", "vehicle", "epoch", "seq", "digest", "row"}


def test_every_column_has_its_row() -> None:
    parts = dict(re.findall(r"^## `(\w+)`: (.*?)(?=^## |^The view|\Z)", TEXT, re.MULTILINE | re.DOTALL))
    assert parts.keys() == TABLES.keys()
    for name, part in parts.items():
        listed = {column for row in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for column in row.split("`")[1::2]}
        assert listed == {*TABLES[name].names} - COMMON
    assert all(f"`{column}`" in TEXT for column in COMMON)


def test_files_read_without_the_log_are_double_after_compaction_and_the_documented_ways_are_right(
    tmp_path: Path,
) -> None:
    lake = Lake(str(tmp_path))
    for seq in (1, 2):
        lake.append("samples", "test", seq, [rows_of(batch(seq))])
    for name in ("events", "batches"):
        lake.append(name, "test", 1, [rows_of(batch(1))])
    compact(str(tmp_path), Work(10**8, 168, None, dry_run=False))
    folder = tmp_path / "samples"
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in folder.rglob("*.parquet")) == 80
    table = DeltaTable(str(folder))
    assert len(table.to_pandas()) == 40
    assert sum(pq.ParquetFile(uri.removeprefix("file://")).metadata.num_rows for uri in table.file_uris()) == 40
