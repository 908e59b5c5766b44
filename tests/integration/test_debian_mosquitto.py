"""The documented configuration of mosquitto works beside the main file of Debian's package, which stays unchanged."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from lab.fleet import FAST_SUITE, enrol_vehicle, make_fleet
from lab.mosquitto import find_mosquitto, free_port
from tests.lab.test_mosquitto import handshake_with

ROOT = Path(__file__).parents[2]
SHOWN = ROOT / "config" / "mosquitto" / "mosquitto.conf"
DEBIAN = """\
# Place your local configuration in /etc/mosquitto/conf.d/
#
# A full description of the configuration file is at
# /usr/share/doc/mosquitto/examples/mosquitto.conf.example

pid_file /run/mosquitto/mosquitto.pid

persistence true
persistence_location /var/lib/mosquitto/

log_dest file /var/log/mosquitto/mosquitto.log

include_dir /etc/mosquitto/conf.d
"""
"""The file /etc/mosquitto/mosquitto.conf of mosquitto 2.0.11-1.2+deb12u2."""

pytestmark = pytest.mark.integration


def test_mosquitto_starts_with_debians_main_file_and_ours(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet-state", FAST_SUITE)
    enrol_vehicle(fleet, tmp_path / "car")
    etc = tmp_path / "etc" / "mosquitto"
    for folder in (etc / "conf.d", etc / "certs", tmp_path / "run", tmp_path / "var"):
        folder.mkdir(parents=True)
    # The lines that the file's beginning gives, in another root.
    commands = re.findall(r"^#   (install -o mosquitto .*)$", SHOWN.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for line in commands:
        words = line.replace("-o mosquitto ", "").replace("fleet-state", str(fleet.root)).split()
        words[-1] = str(tmp_path / words[-1].lstrip("/"))
        subprocess.run(words, cwd=ROOT, check=True)
    ports = {"8883": str(free_port()), "8884": str(free_port())}
    ours = re.sub(r"^listener (\d+)$", lambda found: f"listener {ports[found[1]]}", SHOWN.read_text(), flags=re.M)
    (etc / "conf.d" / "headunit.conf").write_text(ours.replace("/etc/mosquitto", str(etc)))
    main = DEBIAN.replace("/etc/mosquitto", str(etc)).replace("/var/log/mosquitto", str(tmp_path))
    main = main.replace("/run/mosquitto", str(tmp_path / "run")).replace("/var/lib/mosquitto", str(tmp_path / "var"))
    # Root's mosquitto would become a user that may not read this folder.
    if os.geteuid() == 0:
        main = f"user root\n{main}"
    (etc / "mosquitto.conf").write_text(main)
    broker = subprocess.Popen([find_mosquitto(), "-c", etc / "mosquitto.conf"], stderr=subprocess.PIPE, text=True)
    try:
        files = tmp_path / "car" / "device.crt.pem", tmp_path / "car" / "device.key.pem"
        deadline_s = time.monotonic() + 10
        while True:
            if broker.poll() is not None:
                pytest.fail(f"mosquitto ended: {broker.stderr and broker.stderr.read()}")
            try:
                answer = handshake_with("127.0.0.1", int(ports["8883"]), fleet.ca_certificate, files)
                break
            except ConnectionError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        assert (answer[0], answer[3]) == (0x20, 0)
    finally:
        broker.terminate()
        broker.wait(10)


def test_the_main_file_above_is_the_one_of_the_package() -> None:
    installed = Path("/etc/mosquitto/mosquitto.conf")
    listed = Path("/var/lib/dpkg/info/mosquitto.conffiles")
    if not installed.exists() or not listed.exists() or shutil.which("dpkg-query") is None:
        pytest.skip("mosquitto is not installed as a package of Debian")
    assert installed.read_text() == DEBIAN
