"""Frames on a busy bus are captured even while the agent is still being imported and built."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import can_interfaces
from tests.vcan import PATIENCE_S
from tests.vcan.test_kill import BUSES, configure, counted


@pytest.mark.timeout(2 * PATIENCE_S)
def test_frames_that_come_before_the_agent_is_ready_are_captured_and_stored(tmp_path: Path) -> None:
    vehicle = configure(tmp_path)
    agent = vehicle.agent(tmp_path / "agent.log")
    with can_interfaces.vcan(*BUSES):
        load = [can_interfaces.cangen(bus, "-g", "5", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        time.sleep(0.5)
        started = datetime.now(UTC)
        with agent.running_now():
            try:
                agent.until(lambda: agent.said("source_running") == len(BUSES), "capturing", PATIENCE_S)
            finally:
                for process in load:
                    process.terminate()
                    process.wait()
            time.sleep(0.5)
            assert agent.stop() == 0
    (ready,) = agent.lines("agent_ready")
    for event in agent.lines("source_running"):
        assert started < datetime.fromisoformat(event["first_frame"]) < datetime.fromisoformat(ready["timestamp"])
    for counts in counted(tmp_path, vehicle).values():
        assert counts.tolist() == list(range(int(counts[0]), int(counts[0]) + len(counts)))  # no frame is missing
