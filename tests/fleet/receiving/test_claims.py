"""Two fleet folders write to one lake: with one share only one of them, with different shares both."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import Permanent, Transient
from agent.formats.topics import PARTITIONS, partition_of
from fleet.lake.location import Location
from fleet.lake.query import ask_sql
from fleet.receiving.message import Message
from fleet.receiving.service import open_store
from fleet.receiving.share import Share
from fleet.receiving.store import Store
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import Vehicle, make_vehicle, numbers


def acknowledged(store: Store, vehicle: Vehicle, *seqs: int) -> set[int]:
    """Bring batches to a receiver, and return those that it acknowledges, none if it ends instead."""
    store.take_in([Message(vehicle.topic, vehicle.batch(seq)) for seq in seqs])
    try:
        try:
            answers = store.land()
        except Transient:
            answers = store.land()
    except Permanent as error:
        assert "has claimed" in str(error)
        return set()
    return {seq for answer in answers for seq in numbers(vehicle.verify(answer.payload).stored)}


def batches_in(fleet: FleetFolder) -> list[int]:
    return [int(str(seq)) for (seq,) in ask_sql(str(fleet.lake), "SELECT seq FROM batches ORDER BY seq").rows]


def copy_of(fleet: FleetFolder, root: Path) -> FleetFolder:
    shutil.copytree(fleet.root, root, ignore=shutil.ignore_patterns("lake"))
    return FleetFolder(root)


@pytest.mark.parametrize("learns", [False, True])
def test_two_receivers_with_copies_of_one_inbox_acknowledge_only_what_the_lake_has(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path, learns: bool
) -> None:
    with closing(open_store(fleet, Share())) as first:
        assert acknowledged(first, vehicle, 1) == {1}
    copy = copy_of(fleet, tmp_path / "copy")
    lake = Location(str(fleet.lake))
    with closing(open_store(fleet, Share())) as first, closing(open_store(copy, Share(), lake)) as second:
        stored = acknowledged(second, vehicle, 2, 3)
        stored |= acknowledged(first, vehicle, 4, 5)
    assert stored == {2, 3}
    assert batches_in(fleet) == [1, 2, 3]
    if learns:  # the first receiver is started again, and has batches in its inbox
        with closing(open_store(fleet, Share())) as first:
            first.recover()
            assert acknowledged(first, vehicle, 2, 3, 4, 5) == {2, 3, 4, 5}
        assert batches_in(fleet) == [1, 2, 3, 4, 5]


def test_folders_with_different_shares_use_one_lake_at_the_same_time(
    fleet: FleetFolder, vehicle: Vehicle, tmp_path: Path
) -> None:
    half = PARTITIONS // 2
    other = vehicle
    while (partition_of(other.name) < half) == (partition_of(vehicle.name) < half):
        other = make_vehicle(fleet, tmp_path / f"other{partition_of(other.name)}{len(list(tmp_path.iterdir()))}")
    low, high = sorted((vehicle, other), key=lambda each: partition_of(each.name))
    copy = copy_of(fleet, tmp_path / "copy")
    with (
        closing(open_store(fleet, Share(0, half - 1))) as first,
        closing(open_store(copy, Share(half, PARTITIONS - 1), Location(str(fleet.lake)))) as second,
    ):
        for seq in (1, 2):
            assert acknowledged(first, low, seq) == {seq}
            assert acknowledged(second, high, seq) == {seq}
    assert batches_in(fleet) == [1, 1, 2, 2]
