"""Test a car whose clock is wrong when it boots: a real agent, without a broker, over a reboot."""

import time
from pathlib import Path
from typing import Any, Final

import pytest

from agent.system.boot import BOOT_ID
from lab.machine import ClockedMachine
from lab.vehicle import Agent
from tests.agent.car import Car

pytestmark = pytest.mark.integration

DAY_S: Final = 86_400
LIMIT_S: Final = DAY_S + round(time.clock_gettime(time.CLOCK_BOOTTIME))
"""The age limit: above the time since this machine booted, because the second boot in the test has the same time."""
BEHIND_NS: Final = {"300 days ago": 300 * DAY_S * 10**9, "1970": time.time_ns()}


def until_stored(agent: Agent, batches: int) -> dict[str, Any]:
    return agent.until_status(lambda status: status["spool"]["waiting"] >= batches, f"{batches} batches stored")[
        "spool"
    ]


@pytest.mark.parametrize("behind_ns", BEHIND_NS.values(), ids=BEHIND_NS)
@pytest.mark.parametrize("set_in", ["the first boot", "the second boot"])
@pytest.mark.attack(
    "3b",
    "a car boots offline without a clock",
    how="A real agent stores batches under a wrong clock, which is set in this boot or in the next.",
    before="40,000 of 40,000 samples evicted as over age",
)
def test_a_car_that_booted_offline_without_a_clock_keeps_its_spool_once_the_clock_is_set(
    tmp_path: Path, behind_ns: int, set_in: str
) -> None:
    machine = ClockedMachine(tmp_path / "clock")
    car = Car.make(tmp_path, machine=machine, spool=f"reserve_mb = 0\nmax_age_s = {LIMIT_S}")
    machine.move_clock(-behind_ns)
    with car.running(environment={BOOT_ID: "1" * 32}) as agent:
        stored = until_stored(agent, 3)["waiting"]
        if set_in == "the first boot":
            machine.move_clock(0)
            stored = until_stored(agent, stored + 3)["waiting"]
        assert agent.stop() == 0
    machine.move_clock(0)
    with car.running(environment={BOOT_ID: "2" * 32}) as agent:
        spool = until_stored(agent, stored + 3)
        assert spool["lost"] == {}
        assert agent.stop() == 0
