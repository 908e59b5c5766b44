"""Root leaves no file of its own in the state folder of the service's user."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.system import folder_owner
from lab.process import PATIENCE_S
from tests.agent.car import ROOT, Car, command, write_log
from tests.integration.lake import in_lake, receiving

NOBODY = 65_534

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into the folders of others"),
]


@pytest.fixture
def car() -> Iterator[Car]:
    """A car of the user nobody, in a folder that this user can reach."""
    with tempfile.TemporaryDirectory(prefix="hu-root-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        car = Car.make(folder)
        car.folder.chmod(0o755)
        car.state.mkdir(0o700)
        shutil.chown(car.state, NOBODY)
        for path in (car.config, car.identity, *car.identity.iterdir()):
            shutil.chown(path, NOBODY)
        yield car


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


def open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def agent(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `headunit-agent ARGUMENTS` with a Python that the user nobody can read as well."""
    packages = Path(sysconfig.get_paths()["purelib"])
    own, debian = sysconfig.get_paths()["stdlib"], Path(f"/usr/bin/python3.{sys.version_info.minor}")
    python = sys.executable if open_to_all(Path(own)) else debian
    if not Path(python).exists() or not open_to_all(packages) or not open_to_all(ROOT):
        pytest.skip("the user nobody cannot read the Python and the packages of these tests")
    return subprocess.run(
        [python, "-m", "agent", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{packages}"},
    )


@pytest.fixture
def log(car: Car) -> Path:
    file = car.folder.parent / "drive.log"
    write_log(file, 5)
    file.chmod(0o644)
    return file


def test_run_as_root_names_the_command_for_the_user_and_writes_nothing(car: Car) -> None:
    done = command("agent", "run", "--config", car.config)
    assert done.returncode == 1
    assert f"runuser -u nobody -- headunit-agent run --config {car.config.resolve()}" in done.stderr
    assert "systemctl start headunit-agent" in done.stderr
    assert list(car.state.iterdir()) == []


def test_replay_as_root_becomes_the_user_to_whom_the_state_belongs(car: Car, log: Path) -> None:
    with receiving(car):
        done = agent("replay", "--config", car.config, "--log", log, "--speed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert owners(car.state) == {NOBODY}
    assert (car.folder / "run").stat().st_uid == NOBODY
    assert in_lake(car, "SELECT count(*) FROM samples") != 0


def test_files_of_root_in_the_state_are_one_error_with_the_remedy(car: Car, log: Path) -> None:
    (car.state / "pushes").mkdir(0o700)
    done = agent("replay", "--config", car.config, "--log", log, "--speed", "0")
    assert done.returncode == 1
    assert f"chown -R headunit-agent: {car.state}" in done.stdout + done.stderr


def test_a_user_without_a_name_is_called_by_the_number() -> None:
    assert folder_owner.user_name(3_999_999_999) == "3999999999"
