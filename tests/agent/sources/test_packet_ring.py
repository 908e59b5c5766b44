"""A packet ring is used if the machine allows one, and python-can if not.  tests/vcan tests the frames."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.commands.check import check
from agent.runtime.configured_sources import make_source
from agent.settings import settings
from agent.sources import interfaces, ring_socket
from agent.sources.packet_ring import PacketRingSource
from agent.sources.python_can import PythonCanSource

CONFIGURATION = """
[uplink]
broker = "localhost:8883"
[[sources]]
kind = "packet_ring"
bus = "chassis"
interface = "hutest7"
"""
UNPRIVILEGED = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(CONFIGURATION)
    return file


def test_check_says_how_frames_are_captured_and_what_it_waits_for(configuration: Path) -> None:
    report = check(configuration)
    source = make_source(settings.load(configuration), 0, lambda _: None)
    assert (source.name, source.buses) == ("chassis", ("chassis",))
    if ring_socket.unavailable() is None:
        assert isinstance(source, PacketRingSource)
        assert report.facts["capture"]["chassis"].startswith("packet ring (CAP_NET_RAW is held, ")
    else:
        assert isinstance(source, PythonCanSource)
        assert "python-can (socketcan)" in report.facts["capture"]["chassis"]
    assert "source chassis: interface hutest7 does not exist; the agent waits until it is up" in report.notes


def test_without_the_capability_python_can_takes_over_and_check_says_why(configuration: Path) -> None:
    if ring_socket.unavailable() is None and shutil.which("setpriv") is None:
        pytest.skip("no setpriv to take the capability away")
    program = (
        f"from pathlib import Path; from agent.commands.check import check; print(check(Path({str(configuration)!r})))"
    )
    prefix = UNPRIVILEGED if ring_socket.unavailable() is None else []
    done = subprocess.run([*prefix, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "python-can (socketcan) for this user, which lacks it" in done.stdout
    assert "note: packet_ring: this user lacks CAP_NET_RAW. The service unit grants it" in done.stdout


def test_interfaces_are_up_down_or_not_there() -> None:
    assert interfaces.interface_up("lo") in {True, False}
    assert interfaces.interface_up("hutest7") is None
