"""A large document travels from the real receiver over mosquitto to the real agent, which is killed meanwhile."""

import time
from pathlib import Path

import pytest

from lab.fleet import fleet_command
from tests.agent.car import Car
from tests.agent.pushes.world import noisy_campaign
from tests.integration.lake import receiving

pytestmark = pytest.mark.integration


def test_a_large_document_arrives_over_kills_of_the_agent_and_nothing_is_fetched_twice(tmp_path: Path) -> None:
    car = Car.make(tmp_path)
    document = tmp_path / "large.json"
    document.write_bytes(noisy_campaign("large", 640_000))
    fleet_command(car.fleet, "publish", "--campaign", str(document))
    folder = car.state / "pushes" / "large"
    with receiving(car):
        for _ in range(3):
            agent = car.start()
            _until_more_chunks(folder)
            before = {path: path.stat().st_mtime_ns for path in folder.glob("*/[0-9]*")}
            agent.kill()
        with car.running() as agent:
            status = agent.until_status(lambda status: status["pushes"]["version"] == 2, "the release is in force")
    assert status["pushes"]["refused"] == {}
    assert status["pushes"]["chunks"]["missing"] == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/[0-9]*")}
    assert len(after) == 7
    assert before.items() <= after.items()


def _until_more_chunks(folder: Path) -> None:
    count, deadline_s = len(list(folder.glob("*/[0-9]*"))), time.monotonic() + 60
    while len(list(folder.glob("*/[0-9]*"))) <= count < 7:
        assert time.monotonic() < deadline_s, "no chunk has arrived"
        time.sleep(0.005)
