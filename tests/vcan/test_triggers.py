"""A trigger is durable soon after its frame: the batch is in the spool within 300 ms after the frame was drained."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.formats.up.decode import decode_window
from agent.formats.up.recipient import RecipientPrivateKey
from agent.formats.up.seal import unseal
from fleet.state.folder import FleetFolder
from fleet.state.registry import Registry
from lab import can_interfaces
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.vehicle import Vehicle
from tests.vcan import PATIENCE_S
from tests.vcan.supervisor import Supervisor
from tests.vcan.test_kill import BUS, DBC, SOURCE

DRAIN_MS = 100
"""A packet ring is drained this often, so a frame waits as long at most before the agent sees it."""
LIMIT_MS = 300
SECONDS = 20.0
CAMPAIGN = {
    "name": "often",
    "collectionScheme": {
        "conditionBasedCollectionScheme": {
            "expression": "$variable.`Vehicle.Load.Count` >= 0",
            "minimumTriggerIntervalMs": 150,
        }
    },
    "signalsToCollect": [{"name": "Vehicle.Load.Count", "maxSampleCount": 50}],
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Supervisor]:
    config = tmp_path / "car" / "agent.toml"
    supervisor = Supervisor([sys.executable, "-m", "agent", "run", "--config", str(config)], tmp_path)
    yield supervisor
    supervisor.end()


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_trigger_is_durable_soon_after_its_frame(
    tmp_path: Path, service: Supervisor, record_property: Callable[[str, object], None]
) -> None:
    vehicle = Vehicle(
        tmp_path / "car",
        broker_port=1,  # no program listens there
        sources=SOURCE.format(bus="can0"),
        buses=BUS.format(bus="can0"),
    )
    enrol_vehicle(make_fleet(tmp_path / "fleet", FAST_SUITE), vehicle.identity)
    vehicle.write()
    (vehicle.folder / "load.dbc").write_text(DBC)
    vehicle.write_campaigns(CAMPAIGN)
    log = tmp_path / "load.log"
    can_interfaces.counting_log(log, "can0", frames_per_s=200, seconds=SECONDS)
    with can_interfaces.vcan("can0"):
        service.start()
        service.wait_ready(PATIENCE_S)
        time.sleep(1)
        assert can_interfaces.canplayer(log, ["can0"], timed=True).wait() == 0
        time.sleep(1)
        assert service.stop(PATIENCE_S) == 0, service.log
    delays_ms = delays(tmp_path, vehicle)
    assert len(delays_ms) > SECONDS * 3
    p50, p99 = np.percentile(delays_ms, [50, 99])
    record_property("triggers", f"{len(delays_ms)}, from frame to batch p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    assert p99 < DRAIN_MS + LIMIT_MS, sorted(delays_ms)[-10:]


def delays(folder: Path, vehicle: Vehicle) -> list[float]:
    """Return the time of each trigger from the kernel's stamp of its frame to the last change of its batch file."""
    fleet = FleetFolder(folder / "fleet")
    private = RecipientPrivateKey.from_json(fleet.hpke_private.read_bytes(), "hpke.json")
    (record,) = [json.loads(file.read_text()) for file in fleet.vehicles.glob("*.json")]
    found = Registry(fleet.vehicles).find(record["vehicle"])
    assert found is not None
    delays_ms = []
    for file in (vehicle.state / "spool" / "batches").rglob("*.live.*"):
        window = decode_window(unseal(file.read_bytes(), private, *found[1])[1])
        # The file is renamed when it is complete, which changes its ctime.
        delays_ms += [file.stat().st_ctime_ns / 1e6 - event.t_us / 1e3 for event in window.events]
    return delays_ms
