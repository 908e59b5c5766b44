"""An online car whose disk has no room delivers its fresh data from memory, and says what is wrong, once."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.vehicle import delivered
from tests.agent.car import Car, command, drive, vehicle
from tests.agent.expected import count_samples
from tests.integration.lake import in_lake, receiving, samples_in_lake
from tests.small_disk import NoDisk, SmallDisk, small_disk

pytestmark = pytest.mark.integration


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


@contextmanager
def disk_at(folder: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(folder) as disk:
            yield disk
    except NoDisk as error:
        pytest.skip(str(error))


def test_below_the_reserve_an_online_car_delivers_every_sample_and_says_what_is_wrong_once(car: Car) -> None:
    drive_s = 20.0
    car.write(sources=vehicle(drive_s, speed=4.0), telemetry="increment_s = 1", spool="reserve_mb = 1e9")
    car.limits = {"window_max_samples": 1_000}
    with receiving(car), car.running() as agent:
        done = agent.until_status(delivered, "delivered")
        assert samples_in_lake(car) == count_samples(drive(drive_s))
        assert done["spool"]["lost"] == {}
        assert "spool.reserve_mb" in done["spool"]["shortage"]
        text = command("agent", "status", "--config", car.config).stdout
        assert "spool.reserve_mb" in text
        checked = command("agent", "check", "--config", car.config, "--json")
        assert agent.stop() == 0
    assert agent.said("reserve_not_kept") == 1
    assert checked.returncode == 1
    assert any("spool.reserve_mb" in problem for problem in json.loads(checked.stdout)["problems"])
    assert in_lake(car, "SELECT count(*) FROM events WHERE kind = 'loss'") == 0


def test_on_a_full_disk_an_online_car_delivers_every_sample_before_the_disk_has_room_again(car: Car) -> None:
    drive_s = 30.0
    car.write(sources=vehicle(drive_s, speed=2.0), telemetry="increment_s = 1")
    car.limits = {"window_max_samples": 1_000}
    with disk_at(car.folder / "state") as disk, receiving(car), car.running() as agent:
        agent.until_status(lambda s: s["spool"]["next_seq"] > 3, "stored")
        disk.fill()
        agent.until(lambda: agent.said("disk_refuses"), "refused")
        before = samples_in_lake(car)
        agent.until(lambda: samples_in_lake(car) > before + 10_000, "arrived")
        checked = command("agent", "check", "--config", car.config, "--json")
        full = agent.status()
        disk.free()
        agent.until(lambda: agent.said("disk_accepts_again"), "accepting")
        done = agent.until_status(delivered, "delivered")
        assert agent.stop() == 0
    assert "free some space" in full["telemetry"]["problem"]
    assert checked.returncode == 1
    assert (agent.said("disk_refuses"), agent.said("disk_accepts_again"), done["spool"]["lost"]) == (1, 1, {})
    assert samples_in_lake(car) == count_samples(drive(drive_s))
    assert in_lake(car, "SELECT count(*) FROM events WHERE kind = 'loss'") == 0


def test_status_says_that_the_agent_is_starting_and_what_it_waits_for(car: Car) -> None:
    with disk_at(car.folder / "state") as disk:
        disk.fill()
        agent = car.start()
        try:
            agent.until(lambda: agent.said("start_postponed"), "waiting")
            text = command("agent", "status", "--config", car.config)
            found = json.loads(command("agent", "status", "--config", car.config, "--json").stdout)
            disk.free()
            agent.until_ready()
            ready = json.loads(command("agent", "status", "--config", car.config, "--json").stdout)
            agent.kill()
            dead = json.loads(command("agent", "status", "--config", car.config, "--json").stdout)
        finally:
            agent.kill()
    assert text.returncode == 1
    assert "agent     has been starting for" in text.stdout
    assert "free some space" in text.stdout
    assert "free some space" in found["starting"]["problem"]
    assert (found["running"], ready["running"], dead["running"], dead["starting"]) == (False, True, False, None)


def test_a_reserve_that_is_lost_and_won_back_is_logged_once_each_and_every_sample_is_accounted_for(car: Car) -> None:
    drive_s = 24.0
    car.write(sources=vehicle(drive_s, speed=2.0), telemetry="increment_s = 1", spool="reserve_mb = 1")
    car.limits = {"window_max_samples": 1_000}
    with disk_at(car.folder / "state") as disk, receiving(car), car.running() as agent:
        agent.until_status(lambda s: s["spool"]["acknowledged"] > 3, "received")
        other = disk.folder / "other program"
        other.write_bytes(bytes(shutil.disk_usage(disk.folder).free - 600_000))
        agent.until(lambda: agent.said("reserve_not_kept"), "short")
        before = samples_in_lake(car)
        agent.until(lambda: samples_in_lake(car) > before + 10_000, "arrived")
        other.unlink()
        agent.until(lambda: agent.said("reserve_kept_again"), "wide")
        done = agent.until_status(delivered, "delivered")
        assert agent.stop() == 0
    assert (agent.said("reserve_not_kept"), agent.said("reserve_kept_again"), done["spool"]["shortage"]) == (1, 1, None)
    lost = sum(reason["samples"] for reason in done["spool"]["lost"].values())
    assert samples_in_lake(car) + lost >= count_samples(drive(drive_s))  # a batch on its way may be evicted and arrive
    assert samples_in_lake(car) <= count_samples(drive(drive_s))
