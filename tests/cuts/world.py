"""Makes a fleet with one vehicle whose state lies on a disk image."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from fleet.state.folder import FleetFolder
from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.user_mode_linux import Storage
from lab.vehicle import IMPATIENT, Vehicle, collect_everything

BUSES: Final = ("can0", "can1")
CAMPAIGNS: Final = {"short": 2_000, "long": 7_000}
"""The campaigns, and the lengths of their windows in milliseconds."""

DBC: Final = 'VERSION ""\nBU_: X\nBO_ 291 Load: 8 X\n SG_ Count : 0|64@1+ (1,0) [0|0] "" X\n'
IMAGE_BYTES: Final = 128 * 1024 * 1024
PORTS: Final = {"broker_port": 18_883, "serve_port": 18_016}  # free in every machine, as its network is its own
# A larger ring makes each start longer inside User Mode Linux; 4 MB hold the frames of four minutes.
SOURCE: Final = """
[[sources]]
kind = "packet_ring"
bus = "{bus}"
interface = "{bus}"
ring_mb = 4
"""
BUS: Final = """
[bus.{bus}]
dbc = ["load.dbc"]
"""


class CutWorld:
    """The files of a history of boots, in `folder`.  They have the same paths inside the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = FleetFolder(folder / "fleet")
        self.storage = Storage(folder / "disk.ext4", folder / "vehicle" / "state", folder)

    def vehicle(self) -> Vehicle:
        return Vehicle(
            self.folder / "vehicle",
            **PORTS,
            sources="".join(SOURCE.format(bus=bus) for bus in BUSES),
            buses="".join(BUS.format(bus=bus) for bus in BUSES),
            telemetry="increment_s = 0.5\ncheckpoint_s = 1.0",
            spool="quota_mb = 64\nreserve_mb = 8",
            state='folder = "state"\nruntime_folder = "/run/headunit-agent"',
            uplink=IMPATIENT,
        )

    def boot_folder(self, number: int) -> Path:
        return self.folder / f"boot-{number}"

    def make(self) -> None:
        """Make the fleet, the vehicle and an empty disk."""
        make_fleet(self.fleet.root, FAST_SUITE)
        vehicle = self.vehicle()
        enrol_vehicle(self.fleet, vehicle.identity)
        vehicle.write()
        (vehicle.folder / "load.dbc").write_text(DBC)
        vehicle.write_campaigns(*(collect_everything(ms, "Load.Count", name) for name, ms in CAMPAIGNS.items()))
        vehicle.state.mkdir()
        with self.storage.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin")
        assert program is not None, "The program mkfs.ext4 is not installed. Install the package e2fsprogs."
        subprocess.run([program, "-q", "-F", str(self.storage.image)], check=True, capture_output=True)
