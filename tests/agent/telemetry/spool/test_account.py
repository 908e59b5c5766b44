"""The account of a spool that no agent uses is complete, and reading it leaves no trace."""

from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.up.columns import Event
from agent.telemetry.spool.account import counts_on_disk
from tests.agent.telemetry.spool.depot import Depot


def test_it_is_that_of_the_spool_and_reading_leaves_no_trace(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "a spool?")
    depot.outbox.add_event(Event(1, "told", {}))
    depot.outbox.flush()
    truth = depot.spool.counts()
    assert counts_on_disk(tmp_path / "a spool?") == truth  # the open spool has a lock and a WAL
    depot.spool.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert counts_on_disk(tmp_path / "a spool?") == truth
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [None, b"", b"no database" * 100])
def test_an_index_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "index.sqlite3").write_bytes(content)
    with pytest.raises(Transient, match="index cannot be read"):
        counts_on_disk(tmp_path)
