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


class _Checkout:
    """A copy of what `make install` needs, with a Python whose pip logs its calls and fails where a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.target = folder / "target"
        shutil.copytree(ROOT / "systemd", self.folder / "systemd")
        shutil.copytree(ROOT / "requirements", self.folder / "requirements")
        for name in ("agent", "can_dbc", "fleet", "docs", "config"):
            (self.folder / name).mkdir()
        for name in ("campaigns", "dbc"):
            (self.folder / "config" / name).mkdir()
        for name in ("pyproject.toml", "setup.py", "README.md", "CHANGELOG.md", "config/agent.toml"):
            (self.folder / name).touch()
        # `make install` asks for this package of Debian, and must not install it in a test.
        (self.folder / "requirements" / "install-debian").write_text("#!/bin/sh\n")

    def install(self, pip: str) -> subprocess.CompletedProcess[str]:
        """Run `make install` with `pip`, the text of a shell script in the place of pip."""
        python = self.folder / "python"
        python.write_text(
            '#!/bin/sh\nmkdir -p "$3/bin"\nfor name in headunit-agent fleet; do echo "#!x" >"$3/bin/$name"; done\n'
            f'cat >"$3/bin/pip" <<\'END\'\n#!/bin/sh\necho "$*" >>{self.folder}/calls\n{pip}\nEND\n'
            'chmod +x "$3/bin/pip"\n'
        )
        python.chmod(0o755)
        return subprocess.run(
            [self.folder / "systemd" / "install"],
            env={"PATH": os.environ["PATH"], "DESTDIR": str(self.target), "PYTHON": str(python)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        """Return the arguments of each call of pip."""
        return (self.folder / "calls").read_text().splitlines()


def test_an_installation_takes_four_calls_of_pip(tmp_path: Path) -> None:
    checkout = _Checkout(tmp_path)
    done = checkout.install("")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Installed. Next:") == 1
    assert len(checkout.calls) == 4
    # Root can read more than the service, so the check is advised for the service's user.
    assert "runuser -u headunit-agent -- /opt/headunit-agent/venv/bin/headunit-agent check" in done.stdout


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ERROR: No matching distribution found for cbor2==5.9.0", "could not fetch the packages; check the network"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "names by its hash (see above)"),
    ],
)
@pytest.mark.parametrize("failing", ["requirements/build.txt", "requirements/agent.txt"])
def test_an_installation_ends_at_pips_first_failure_and_names_the_cause(
    tmp_path: Path, failing: str, said: str, words: str
) -> None:
    checkout = _Checkout(tmp_path)
    done = checkout.install(f'case "$*" in *{failing}*) echo "{said}" >&2; exit 1;; esac')
    assert done.returncode != 0
    assert "Installed" not in done.stdout
    assert said in done.stderr
    last = done.stderr.splitlines()[-1]
    assert words in last
    assert "Nothing in /opt/headunit-agent was changed. The whole log is build/install.log" in last
    assert failing in checkout.calls[-1]


def test_all_that_is_fetched_is_fetched_before_the_environment_of_the_agent_changes(tmp_path: Path) -> None:
    checkout = _Checkout(tmp_path)
    checkout.install("")
    *_, dependencies, package = checkout.calls
    assert "-r requirements/agent.txt" in dependencies
    assert "--no-index" in package


def test_a_failure_that_may_have_changed_the_environment_says_so(tmp_path: Path) -> None:
    done = _Checkout(tmp_path).install('case "$*" in *--force-reinstall*) echo "No space left"; exit 1;; esac')
    assert done.returncode != 0
    assert "The installation failed. Start nothing from /opt/headunit-agent until make install succeeds." in done.stderr


def test_an_installed_agent_that_runs_is_to_be_restarted(tmp_path: Path) -> None:
    script = (ROOT / "systemd" / "install").read_text()
    assert "The service still runs the earlier version, until: systemctl restart headunit-agent" in script
    active = script.index("systemctl --quiet is-active headunit-agent")
    assert active < script.index("Installed. Next:")
