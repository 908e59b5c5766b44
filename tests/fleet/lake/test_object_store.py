"""A lake in an object store: appended, asked as a process that ends, and compacted."""

import json
from pathlib import Path

import pytest

from fleet.lake.compact import Work, compact
from fleet.lake.location import Location
from fleet.lake.query import ask, ask_sql
from fleet.lake.rows import rows_of
from fleet.lake.schema import SCHEMAS
from fleet.lake.tables import Lake
from tests.agent.car import command
from tests.fleet.lake import object_store
from tests.fleet.lake.test_ledger import batch
from tests.fleet.vehicles import make_fleet

pytestmark = pytest.mark.timeout(200)
URL = f"s3://{object_store.BUCKET}/lake"


def test_a_lake_in_an_object_store_is_written_asked_and_compacted(tmp_path: Path) -> None:
    with object_store.running() as options:
        location = Location(URL, options)
        lake = Lake(location)
        for seq in range(1, 9):
            for name in SCHEMAS:
                lake.append(name, "test", seq, [rows_of(batch(seq))])
        options_file = tmp_path / "options.toml"
        options_file.write_text("".join(f'{name} = "{value}"\n' for name, value in options.items()))
        fleet = make_fleet(tmp_path / "fleet").root
        for _ in range(4):
            where = ("--fleet", fleet, "--lake", URL, "--lake-options", options_file, "--json")
            done = command("fleet", "query", "sql", *where, "select * from samples limit 3")
            assert (done.returncode, len(json.loads(done.stdout))) == (0, 3), done.stderr
        assert ask_sql(location, "SELECT count(*) FROM samples WHERE seq > 4").rows == ((80,),)
        assert compact(location, Work(10**8, 1, None, dry_run=False))[0]["files_compacted"] == 8
        assert ask_sql(location, "SELECT count(*) FROM samples").rows == ((160,),)
        assert len(ask(location, "batches").rows) == 1
