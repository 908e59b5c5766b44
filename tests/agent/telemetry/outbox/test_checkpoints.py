"""Checkpoints go into the spool while their window is open, and leave it with the window."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.formats.up.losses import Reason
from agent.formats.up.seal import read_header
from tests.agent.telemetry.outbox.contents import put, put_checkpoint, starts, window
from tests.agent.telemetry.spool.depot import Depot


def test_a_checkpoint_that_the_disk_refuses_does_not_wait_in_memory(tmp_path: Path) -> None:
    depot = Depot(tmp_path)
    depot.disk.full = True
    assert not put_checkpoint(depot, window(1))
    assert depot.outbox.pending_bytes == 0
    depot.disk.full = False
    put(depot, window(2))
    assert starts(depot) == [2]


def test_a_checkpoint_is_numbered_in_its_window_and_goes_with_it(depot: Depot) -> None:
    assert [put_checkpoint(depot, window(n)) for n in (1, 2)] == [True, True]
    assert (depot.entries(), depot.spool.counts().checkpoints[0]) == ([], 2)
    put(depot, window(1, samples=200))
    assert [(entry.key, entry.samples) for entry in depot.entries()] == [((depot.spool.epoch, 1), 200)]
    assert depot.spool.counts().checkpoints == (0, 0)
    assert put_checkpoint(depot, window(4))


def test_the_header_of_a_checkpoint_names_its_window_as_epoch(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=6_000)
    assert put_checkpoint(depot, window(1, samples=9_000))
    depot.spool.close()
    again = Depot(tmp_path)
    headers = [read_header(again.spool.read(entry) or b"") for entry in again.entries()]
    assert [header.seq for header in headers] == list(range(1, len(headers) + 1))
    assert len(headers) > 1
    (window_id,) = {header.epoch for header in headers}
    assert window_id != again.spool.epoch
    assert sum(each.samples for each in again.windows()) == 9_000


def test_a_window_says_its_id_only_if_checkpoints_of_it_were_stored(tmp_path: Path) -> None:
    """The receiver then recognises checkpoints that a disk which was put back still sends."""
    depot = Depot(tmp_path)
    assert put_checkpoint(depot, window(1))
    (checkpoint,) = tmp_path.glob("checkpoints/*")
    put(depot, window(1, samples=200))
    put(depot, window(2))
    assert [each.id for each in depot.windows()] == [checkpoint.name.split(".")[0], ""]


def test_checkpoints_whose_window_memory_cannot_hold_are_sent_and_only_the_rest_is_lost(tmp_path: Path) -> None:
    depot = Depot(tmp_path, pending_max_bytes=1)
    assert put_checkpoint(depot, window(1, samples=700))
    depot.disk.full = True
    put(depot, window(1, samples=1_000))
    put(depot, window(2, samples=1_000))
    depot.disk.full = False
    depot.outbox.flush()
    assert [(w.start_us, w.samples) for w in depot.windows() if w.samples] == [(1, 700), (2, 1_000)]
    assert depot.lost() == {Reason.MEMORY_FULL: 300}


def test_each_fragment_of_a_cut_window_says_how_many_there_are(tmp_path: Path) -> None:
    depot = Depot(tmp_path, batch_max_bytes=6_000)
    assert put_checkpoint(depot, window(1, samples=9_000))
    assert depot.spool.counts().checkpoints[0] > 1
    put(depot, window(1, samples=20_000))
    entries = depot.entries()
    assert len(entries) > 1
    assert [(entry.seq, entry.fragment, entry.fragments) for entry in entries] == [
        (number, number, len(entries)) for number in range(1, len(entries) + 1)
    ]
    assert len({entry.window for entry in entries}) == 1
    assert sum(each.samples for each in depot.windows()) == 20_000


@pytest.mark.parametrize("written", [1, 2, None])
def test_a_vehicle_that_loses_its_index_while_a_window_is_written_sends_each_sample_once(
    tmp_path: Path, written: int | None
) -> None:
    """`written` is the number of the window's fragments that reached the disk; None means all."""
    folder, aside = tmp_path / "spool", tmp_path / "checkpoints"
    depot = Depot(folder, batch_max_bytes=6_000)
    whole = window(0, samples=20_000)
    (group,) = whole.groups
    assert put_checkpoint(
        depot, replace(whole, groups=(replace(group, t_us=group.t_us[:7_000], raw=group.raw[:, :7_000]),))
    )
    shutil.copytree(folder / "checkpoints", aside)
    put(depot, whole)
    fragments = sorted((folder / "batches").rglob("*.batch"))
    assert len(fragments) > 2
    depot.spool.close()
    for path in [*folder.glob("index.sqlite3*"), *([] if written is None else fragments[written:])]:
        path.unlink()
    shutil.copytree(aside, folder / "checkpoints", dirs_exist_ok=True)  # the removals were not durable
    again = Depot(folder)
    times = [t_us for each in again.windows() for group in each.groups for t_us in group.t_us.tolist()]
    assert len(times) == len(set(times))
    assert len(times) == 20_000 if written is None else 7_000 <= len(times) < 20_000
