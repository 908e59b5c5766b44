"""Makes the fleet of a world: creates its folder, enrols vehicles, and runs `fleet` commands as an operator does."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from agent.errors import Permanent
from fleet.admin.create import create_fleet
from fleet.admin.enrol import Model, enrol
from fleet.state.folder import FleetFolder
from fleet.state.vehicle_record import VehicleRecord
from lab.machine import Machine, ThisMachine

MODEL: Final = Model("Aria", "One", "EU", 2026)
DAYS: Final = 2
FAST_SUITE: Final = "X25519"
PRODUCT_SUITE: Final = "MLKEM768_X25519"


def make_fleet(root: Path, suite: Literal["MLKEM768_X25519", "X25519"] = PRODUCT_SUITE) -> FleetFolder:
    """Create a fleet in the new folder `root`."""
    fleet = FleetFolder(root)
    create_fleet(fleet, suite=suite, broker_names=(), now=datetime.now(UTC))
    return fleet


def enrol_vehicle(fleet: FleetFolder, identity: Path) -> VehicleRecord:
    """Enrol a vehicle of the model MODEL, write its files to the folder `identity`, and return its record."""
    return enrol(fleet, identity, MODEL, days=DAYS, now=datetime.now(UTC))


def fleet_command(fleet: FleetFolder, verb: str, *arguments: str, machine: Machine | None = None) -> Any:
    """Run `fleet VERB ... --json` to its end, and return the parsed JSON.  Raises: Permanent if the command fails."""
    command = [*(machine or ThisMachine()).python("fleet"), verb, "--fleet", str(fleet.root), *arguments, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Permanent(
            f"The command `fleet {verb} {' '.join(arguments)}` failed: {done.stderr.strip() or done.stdout.strip()}"
        )
    return json.loads(done.stdout)
