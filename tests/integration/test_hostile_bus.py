"""Test the agent as a real process on a bus that a hostile device floods."""

import random
from pathlib import Path

import pytest

from agent.telemetry.collect.senders import MAX_SENDERS
from lab.process import PATIENCE_S
from tests.agent.car import Car
from tests.attack_report import RecordAttack
from tests.integration.test_agent import frames, spooled

pytestmark = pytest.mark.integration

MESSAGES = 256
FLOOD_FRAMES = 60_000
HONEST_EVERY = 100  # one frame of the honest sender in so many; its source address is 3
MAX_GROWTH_MB = 40
"""The greatest growth of the agent's memory.  It grows by some 10 MB; without the limit of senders it grew by 75 MB."""


def write_database(file: Path) -> None:
    file.write_text(
        'VERSION ""\n\nBU_: A\n\n'
        + "".join(
            f'BO_ {0x80000000 | 0x18F00000 | i << 8} M{i}: 8 A\n SG_ Value : 0|16@1+ (1,0) [0|0] "" A\n\n'
            for i in range(MESSAGES)
        )
    )


def write_flood(file: Path) -> None:
    """Write 20 s of a bus on which every sender of every message seems to speak."""
    draw = random.Random(1)
    with file.open("w") as log:
        for number in range(FLOOD_FRAMES):
            can_id = 0x18F00000 | draw.randrange(MESSAGES) << 8 | draw.randrange(10, 256)
            if number % HONEST_EVERY == 0:
                can_id = 0x18F00003
            t_us = number * 20_000_000 // FLOOD_FRAMES
            stamp = f"({1_782_892_800 + t_us // 10**6}.{t_us % 10**6:06d})"
            log.write(f"{stamp} can0 {can_id:08X}#{number & 0xFFFF:04X}000000000000\n")


def resident_mb(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1_000


@pytest.mark.attack(
    "11",
    "a device floods the bus from random source addresses",
    how="60,000 frames of random J1939 senders and messages.",
    before="257 MB in 70 s",
    receipt="too_many_senders",
)
def test_a_flood_of_random_j1939_senders_is_bounded_and_an_honest_sender_goes_on_being_collected(
    tmp_path: Path, attack: RecordAttack
) -> None:
    database, log = tmp_path / "truck.dbc", tmp_path / "flood.log"
    write_database(database)
    write_flood(log)
    source = f'[[sources]]\nkind = "replay"\nlog = "{log}"\nspeed = 4.0'
    car = Car.make(tmp_path, sources=source)
    car.buses = f'[bus.can0]\ndbc = ["{database}"]\nmatch = "pgn"\n'
    car.write()
    with car.running() as agent:
        before_mb = resident_mb(agent.pid)
        agent.until_status(frames(FLOOD_FRAMES), "replayed", PATIENCE_S * 3)
        grown_mb = resident_mb(agent.pid) - before_mb
        attack(figure={"grown_mb": round(grown_mb)})
        assert agent.stop() == 0
    groups = [group for window in spooled(car) for group in window.groups]
    collected = sum(len(group.t_us) for group in groups)
    honest = sum(len(group.t_us) for group in groups if group.source_address == 3)
    lost = sum(
        dict(event.fields)["frames"]
        for window in spooled(car)
        for event in window.events
        if event.kind == "loss" and dict(event.fields)["reason"] == "too_many_senders"
    )
    assert honest == FLOOD_FRAMES // HONEST_EVERY
    assert collected + lost == FLOOD_FRAMES
    assert max(len(window.groups) for window in spooled(car)) <= MAX_SENDERS
    assert grown_mb < MAX_GROWTH_MB
