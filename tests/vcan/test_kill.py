"""SIGKILL at any moment loses no frame of a bus that a packet ring captures."""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.formats.topics import Lane
from agent.formats.up.decode import decode_window
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import unseal
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from lab import can_interfaces
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.vehicle import Vehicle, collect_everything
from tests.agent.telemetry.spool.store import Store
from tests.vcan import PATIENCE_S
from tests.vcan.supervisor import Supervisor, settled

BUSES = ("can0", "can1")
KILLS = int(os.environ.get("VCAN_KILLS", "20" if os.environ.get("REQUIRE_VCAN") == "1" else "2"))
SEED = 20_260_701
DBC = 'VERSION ""\nBU_: X\nBO_ 291 Load: 8 X\n SG_ Count : 0|64@1+ (1,0) [0|0] "" X\n'
# A full ring loses frames by design, so the rings must have room for all frames that come while the agent is killed and
# started: 16 MB hold the frames of eight minutes.  A larger ring makes each start longer inside User Mode Linux.
SOURCE = """
[[sources]]
kind = "packet_ring"
bus = "{bus}"
interface = "{bus}"
ring_mb = 16
"""
BUS = """
[bus.{bus}]
dbc = ["load.dbc"]
"""


def configure(folder: Path) -> Vehicle:
    """Enrol a vehicle that collects every frame of both buses, in windows of two seconds and of seven."""
    vehicle = Vehicle(
        folder / "car",
        broker_port=1,  # no program listens there
        sources="".join(SOURCE.format(bus=bus) for bus in BUSES),
        buses="".join(BUS.format(bus=bus) for bus in BUSES),
        telemetry="increment_s = 0.5",
    )
    enrol_vehicle(make_fleet(folder / "fleet", FAST_SUITE), vehicle.identity)
    vehicle.write()
    (vehicle.folder / "load.dbc").write_text(DBC)
    vehicle.write_campaigns(
        *(collect_everything(period_ms, "Load.Count", name) for name, period_ms in (("short", 2_000), ("long", 7_000)))
    )
    return vehicle


def counted(folder: Path, vehicle: Vehicle) -> dict[tuple[str, str], np.ndarray]:
    """Return the counter in every sample of the spool, in order of storing, by campaign and bus."""
    fleet = FleetFolder(folder / "fleet")
    private = RecipientPrivateKey.from_json(fleet.hpke_private.read_bytes(), "hpke.json")
    (record,) = [json.loads(file.read_text()) for file in fleet.vehicles.glob("*.json")]
    found = Registry(fleet.vehicles).find(record["vehicle"])
    assert found is not None
    spool = Store.open(vehicle.state / "spool", quota_bytes=256_000_000, max_age_s=1e9, reserve_bytes=0)
    collected: dict[tuple[str, str], list[np.ndarray]] = {}
    try:
        for entry in sorted(spool.pending(10**6, exclude=(), lanes=[Lane.LIVE]), key=lambda entry: entry.row):
            content = spool.read(entry)
            assert content is not None
            window = decode_window(unseal(content, private, *found[1])[1])
            for group in window.groups:
                collected.setdefault((window.campaign, group.signals[0].bus), []).append(group.raw[0])
    finally:
        spool.close()
    return {key: np.concatenate(parts) for key, parts in collected.items()}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Supervisor]:
    config = tmp_path / "car" / "agent.toml"
    supervisor = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(config)], tmp_path)
    yield supervisor
    supervisor.end()


@pytest.mark.timeout(2 * PATIENCE_S + 60 * KILLS)
def test_an_agent_that_is_killed_again_and_again_under_load_stores_each_frame_once(
    tmp_path: Path, service: Supervisor, record_property: Callable[[str, object], None]
) -> None:
    vehicle = configure(tmp_path)
    chance = random.Random(SEED)
    with can_interfaces.vcan(*BUSES):
        service.start()
        service.wait_ready(PATIENCE_S)
        time.sleep(1)
        load = [can_interfaces.cangen(bus, "-g", "5", "-I", "123", "-L", "8", "-D", "i") for bus in BUSES]
        ready_after_s = []
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 4))
            service.kill()
            started_s = time.monotonic()
            service.start()
            if chance.random() < 0.7:  # otherwise the kill may come before the agent is ready
                service.wait_ready(PATIENCE_S)
                ready_after_s.append(time.monotonic() - started_s)
        for process in load:
            process.terminate()
            process.wait()
        sent = {bus: settled(bus) for bus in BUSES}
        service.wait_ready(PATIENCE_S)
        time.sleep(1)
        assert service.stop(PATIENCE_S) == 0, service.log
    record_property("sent", f"{sent}, {KILLS} kills, ready after {np.median(ready_after_s):.1f} s")
    stored = counted(tmp_path, vehicle)
    assert set(stored) == {(name, bus) for name in ("short", "long") for bus in BUSES}
    problems = []
    for (campaign, bus), counts in stored.items():
        missing = np.setdiff1d(np.arange(sent[bus]), counts)
        values, times = np.unique(counts, return_counts=True)
        if len(missing):
            problems.append(f"{campaign} {bus}: {len(missing)} of {sent[bus]} missing, {missing[0]} to {missing[-1]}")
        if (times > 1).any():
            double = values[times > 1]
            problems.append(f"{campaign} {bus}: {len(double)} double, {double[0]} to {double[-1]}")
    assert not problems, f"{problems}\n{service.log}"
