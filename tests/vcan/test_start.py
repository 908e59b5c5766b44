"""A start on a bus that is busy already: what comes while the agent is being imported and built is captured."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vcan import interfaces
from tests.vcan.test_kill import BUSES, configure, counted


@pytest.mark.timeout(120)
def test_frames_that_come_before_the_agent_is_ready_are_captured_and_stored(tmp_path: Path) -> None:
    fleet = configure(tmp_path)
    log = tmp_path / "agent.log"
    with interfaces.vcan(*BUSES):
        load = [interfaces.cangen(bus, "-g", "5", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        time.sleep(0.5)
        started = datetime.now(UTC)
        with log.open("wb") as output:
            agent = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", str(tmp_path / "agent.toml")],
                stdout=output,
                stderr=output,
            )
        try:
            while log.read_text().count('"source_running"') < len(BUSES):
                assert agent.poll() is None, log.read_text()
                time.sleep(0.05)
        finally:
            for process in load:
                process.terminate()
                process.wait()
            time.sleep(0.5)
            agent.terminate()
            agent.wait(30)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (ready,) = [event for event in events if event["event"] == "agent_ready"]
    running = [event for event in events if event["event"] == "source_running"]
    for event in running:
        assert started < datetime.fromisoformat(event["first_frame"]) < datetime.fromisoformat(ready["timestamp"])
    for counts in counted(tmp_path, fleet).values():
        assert counts.tolist() == list(range(int(counts[0]), int(counts[0]) + len(counts)))  # and none of them missing
