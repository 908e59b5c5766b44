"""`make install` says what it needs before it writes anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
def test_without_systemd_nothing_is_installed_and_the_message_names_the_other_way(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "id", "dirname"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    done = subprocess.run(
        [programs / "sh", ROOT / "systemd" / "install"],
        env={"PATH": str(programs), "PREFIX": str(tmp_path / "opt")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "make install needs systemd, and systemd-sysusers is missing. Nothing was installed." in done.stderr
    assert "docs/first-vehicle.md" in done.stderr
    assert not (tmp_path / "opt").exists()
