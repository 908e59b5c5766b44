"""After a power cut, the ledger names every bus, campaign and interval in which frames of a packet ring may be missing.

A power cut ends the agent and all rings that the service manager keeps.  The simulated disk of `tests/powercut` shows
what a cut does to files.  No frame is sent while the machine is off.
"""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.formats.up.losses import Reason
from agent.telemetry.losses import Loss
from lab import can_interfaces
from tests.agent.telemetry.spool.store import Store
from tests.vcan import PATIENCE_S
from tests.vcan.supervisor import Supervisor, settled
from tests.vcan.test_kill import BUSES, SEED, configure, counted

CUTS = int(os.environ.get("VCAN_CUTS", "4" if os.environ.get("REQUIRE_VCAN") == "1" else "2"))
WRONG_S = 1_000_000_000.0  # the year 2001


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Supervisor]:
    config = tmp_path / "car" / "agent.toml"
    supervisor = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(config)], tmp_path)
    yield supervisor
    supervisor.end()


def boot(service: Supervisor, chance: random.Random) -> None:
    """Start the agent after a power cut.  At some starts, it is killed once as soon as its early rings are kept."""
    service.start()
    service.wait_held(len(BUSES), PATIENCE_S)
    if chance.random() < 0.5:
        service.kill()
        service.start()


def sent_at(log: Path) -> dict[str, dict[int, float]]:
    """Return when each frame was sent (seconds since the Unix epoch), by bus and counter, from a log of candump."""
    found: dict[str, dict[int, float]] = {bus: {} for bus in BUSES}
    for line in log.read_text().splitlines():
        stamp, bus, frame = line.split()[:3]
        found[bus][int.from_bytes(bytes.fromhex(frame.split("#")[1]), "little")] = float(stamp[1:-1])
    return found


def open_windows(folder: Path) -> list[Loss]:
    spool = Store.open(folder, quota_bytes=256_000_000, max_age_s=1e9, reserve_bytes=0)
    try:
        with spool._transactions.reading() as index:
            return [loss for loss in index.ledger.all() if loss.reason is Reason.OPEN_WINDOW]
    finally:
        spool.close()


def names(loss: Loss, campaign: str, bus: str, t_s: float) -> bool:
    first_us, last_us = loss.first_t_us or 0, math.inf if loss.last_t_us is None else loss.last_t_us
    return loss.campaign in {"", campaign} and loss.bus == bus and first_us <= t_s * 1e6 <= last_us


@pytest.mark.timeout(2 * PATIENCE_S + 120 * CUTS)
def test_after_every_cut_the_ledger_names_all_that_is_missing_on_a_ring_captured_bus(
    tmp_path: Path, service: Supervisor, record_property: Callable[[str, object], None]
) -> None:
    vehicle, chance, log = configure(tmp_path), random.Random(SEED), tmp_path / "sent.log"
    wrong_clocks = 0
    with can_interfaces.vcan(*BUSES), log.open("wb") as file:
        dump = subprocess.Popen(["candump", "-r", "200000000", "-L", *BUSES], stdout=file)
        service.start()
        service.wait_ready(PATIENCE_S)
        load = [can_interfaces.cangen(bus, "-g", "5", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        for number in range(CUTS):
            time.sleep(chance.uniform(0, 9))
            for process in load:
                process.send_signal(signal.SIGSTOP)
            service.cut_power()
            off_s, wrong = time.monotonic(), number % 4 == 3
            right_s = time.time()
            if wrong:
                wrong_clocks += 1
                time.clock_settime(time.CLOCK_REALTIME, WRONG_S)
            boot(service, chance)
            for process in load:
                process.send_signal(signal.SIGCONT)
            service.wait_ready(PATIENCE_S)
            if wrong:
                time.clock_settime(time.CLOCK_REALTIME, right_s + time.monotonic() - off_s)
        for process in load:
            process.terminate()
            process.wait()
        counts = {bus: settled(bus) for bus in BUSES}
        assert service.stop(PATIENCE_S) == 0, service.log
        dump.terminate()
        dump.wait()
    sent, losses = sent_at(log), open_windows(vehicle.state / "spool")
    assert {bus: len(times) for bus, times in sent.items()} == counts
    missing, unnamed = 0, []
    for (campaign, bus), collected in counted(tmp_path, vehicle).items():
        assert len(collected) == len(np.unique(collected)), f"{campaign} {bus}: a frame was stored twice"
        for counter in set(sent[bus]) - set(collected.tolist()):
            missing += 1
            if not any(names(loss, campaign, bus, sent[bus][counter]) for loss in losses):
                unnamed.append((campaign, bus, counter, sent[bus][counter]))
    record_property("cuts", f"{CUTS}, {wrong_clocks} with a wrong clock: {missing} missing, {len(unnamed)} unnamed")
    assert missing
    assert not unnamed, f"{len(unnamed)} of {missing}: {unnamed[:5]}\n{losses}\n{service.log}"
