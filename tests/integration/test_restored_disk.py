"""A real vehicle whose disk is put back to an earlier state loses nothing, and the fleet is told."""

import shutil
from pathlib import Path

import pytest

from agent.formats.up.seal import digest_of
from fleet.lake.query import query
from tests.agent.car import Car
from tests.integration.lake import in_lake, receiving

pytestmark = pytest.mark.integration


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def batch_files(car: Car) -> set[Path]:
    return set((car.state / "spool" / "batches").rglob("*.batch"))


def drive_offline(car: Car) -> set[str]:
    """Drive until some batches wait, and return the digests of all waiting batches."""
    with car.running() as agent:
        agent.until_status(lambda status: status["spool"]["waiting"] >= 4, "storing")
        assert agent.stop() == 0
    return {digest_of(path.read_bytes()).hex() for path in batch_files(car)}


def deliver(car: Car) -> None:
    """Drive online until every batch that waits now has left the spool."""
    waiting = batch_files(car)
    with car.running() as agent:
        agent.until(lambda: not waiting & batch_files(car), "delivered")
        assert agent.stop() == 0


@pytest.mark.attack(
    "1",
    "the disk of a vehicle is put back to an older image",
    how="A real agent drives, delivers, gets an older image of its state, and drives again under the same numbers.",
    before="0 of 260,873 samples in the lake, nothing lost on paper",
    receipt="epoch_forked",
)
def test_a_vehicle_whose_disk_is_put_back_delivers_what_it_collects_then(car: Car) -> None:
    image = car.folder / "image"
    drive_offline(car)
    with receiving(car):
        deliver(car)
    shutil.copytree(car.state, image)
    sealed = drive_offline(car)
    with receiving(car):
        deliver(car)
    shutil.rmtree(car.state)
    shutil.copytree(image, car.state)
    sealed |= drive_offline(car)
    with receiving(car) as receiver:
        deliver(car)
        assert "epoch_forked" in receiver.output()
    stored = set(query(str(car.fleet.lake), "SELECT digest FROM batches").column(0).to_pylist())
    assert sealed - stored == set()
    assert in_lake(car, "SELECT count(*) - count(DISTINCT (vehicle, epoch, seq, digest, row)) FROM samples") == 0
    assert in_lake(car, "SELECT count(*) - count(DISTINCT (epoch, seq)) FROM batches") > 0
