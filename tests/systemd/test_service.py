"""The units of service and socket pass systemd's own checks, and say what keeps the promises of the service."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.serve.addresses import PASSED
from agent.settings import settings
from agent.settings.sections import ServeSettings
from agent.system.boot import BOOT_ID

UNIT = Path(__file__).parents[2] / "systemd" / "headunit-agent.service"
SOCKET = UNIT.with_suffix(".socket")

if shutil.which("systemd-analyze") is None:  # `make test` installs systemd-analyze
    pytest.skip("systemd-analyze is not installed: apt-get install systemd", allow_module_level=True)


def _with_program(folder: Path) -> Path:
    """Write both units with a program that exists, because `systemd-analyze verify` looks for the program."""
    shutil.copy(SOCKET, folder)
    unit = folder / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    return unit


@pytest.mark.parametrize("unit", [UNIT.name, SOCKET.name])
def test_systemd_finds_nothing_wrong_in_the_unit(tmp_path: Path, unit: str) -> None:
    checked = _with_program(tmp_path).with_name(unit)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", checked], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr.strip()) == (0, "")


def test_systemd_opens_the_port_of_agent_toml_before_any_app_under_the_name_that_the_agent_knows() -> None:
    settings = dict(re.findall(r"^(ListenStream|FileDescriptorName|WantedBy)=(.*)$", SOCKET.read_text(), re.MULTILINE))
    assert settings == {
        "ListenStream": f"{ServeSettings().host}:{ServeSettings().port}",
        "FileDescriptorName": PASSED,
        "WantedBy": "sockets.target",
    }


def test_a_socket_unit_that_fails_does_not_keep_the_service_from_starting() -> None:
    unit = UNIT.read_text()
    assert re.findall(r"^(?:Sockets|Also)=.*$", unit, re.MULTILINE) == [
        f"Sockets={SOCKET.name}",
        f"Also={SOCKET.name}",
    ]
    assert re.findall(r"^(?:Requires|BindsTo|Requisite|PartOf)=.*$", unit + SOCKET.read_text(), re.MULTILINE) == []


def test_an_installed_head_unit_has_no_source_and_no_simulator() -> None:
    root = UNIT.parents[1]
    installed = settings.load(root / "config" / "agent.toml").settings
    assert (installed.sources, installed.bus) == ((), {})
    copied = re.findall(r"^ *cp -r (.*)$", (root / "systemd" / "install-packages").read_text(), re.MULTILINE)[0].split()
    assert {"agent", "can_dbc"} <= set(copied)
    assert not {"simulator", "lab"} & set(copied)


def test_the_installer_installs_every_unit() -> None:
    installer = (UNIT.parent / "install").read_text()
    installed = re.findall(r'"?\$units/([^"]+)"$', installer, re.MULTILINE)
    assert installed == [UNIT.name, SOCKET.name]


def test_exposure_is_at_most_two(tmp_path: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", _with_program(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert level is not None, result.stdout + result.stderr
    assert float(level[1]) <= 2.0


def test_the_unit_asks_for_no_capability_but_raw_sockets() -> None:
    capabilities = re.findall(r"^(?:CapabilityBoundingSet|AmbientCapabilities)=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert capabilities == ["CAP_NET_RAW", "CAP_NET_RAW"]


@pytest.mark.attack(
    "5",
    "an agent crashes more often than a start limit allows",
    how="The unit is read: it has no start limit and restarts the agent always.",
    before="the service stayed down after ten crashes",
)
def test_no_number_of_crashes_leaves_a_vehicle_silent_for_ever() -> None:
    unit = UNIT.read_text()
    settings = dict(
        re.findall(r"^(StartLimit\w+|Restart|RestartSec|RestartPreventExitStatus)=(.*)$", unit, re.MULTILINE)
    )
    assert settings == {"StartLimitIntervalSec": "0", "Restart": "always", "RestartSec": "5s"}


def test_no_copy_of_the_memory_reaches_the_flash() -> None:
    settings = re.findall(r"^(?:LimitCORE|MemorySwapMax)=.*$", UNIT.read_text(), re.MULTILINE)
    assert settings == ["LimitCORE=0", "MemorySwapMax=0"]


def test_the_service_tells_the_boot_id_which_its_sandbox_hides() -> None:
    assert f"Environment={BOOT_ID}=%b\n" in UNIT.read_text()


def test_users_and_folders_are_as_systemd_reads_them(tmp_path: Path) -> None:
    for tool, suffix in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is missing beside systemd-analyze")
        option = ["--dry-run"] if suffix == "sysusers" else ["--cat-config"]
        source = UNIT.parent / f"headunit-agent.{suffix}"
        result = subprocess.run([tool, *option, source], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_the_unit_gives_the_folder_of_the_configuration_the_mode_that_it_has() -> None:
    # systemd warns at each start if the two differ.
    unit, folders = UNIT.read_text(), (UNIT.parent / "headunit-agent.tmpfiles").read_text()
    mode = re.search(r"^d /etc/headunit-agent (\d+) ", folders, re.MULTILINE)
    assert mode is not None
    assert f"ConfigurationDirectory=headunit-agent\nConfigurationDirectoryMode={mode[1]}\n" in unit
