"""`headunit-agent check` names what keeps the agent from its folders, and leaves folders of the system alone."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands import check_folders as module
from agent.commands.check_folders import Findings, check_folders
from agent.settings.settings import Loaded, parse

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder of root that all users may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _loaded(state: Path, runtime: Path) -> Loaded:
    text = f'[state]\nfolder = "{state}"\nruntime_folder = "{runtime}"\n[uplink]\nbroker = "localhost:8883"\n'
    return Loaded(parse(text, "agent.toml"), Path("agent.toml"))


def _as_nobody(loaded: Loaded, units: list[Path]) -> Findings:
    """Return the findings of a user who owns nothing."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def work() -> None:
        os.setuid(NOBODY)
        theirs.send(tuple(check_folders(loaded, units)))

    process = fork.Process(target=work)
    process.start()
    theirs.close()
    found = Findings(*ours.recv())
    process.join()
    return found


@as_root
def test_a_folder_that_this_user_cannot_make_is_to_be_made_and_its_parent_stays_as_it_is(open_folder: Path) -> None:
    state = open_folder / "state"
    first, second = _as_nobody(_loaded(state, open_folder / "runtime"), []).problems
    assert first == (
        f"agent.toml: state.folder: {state} does not exist, and this user cannot make it in {open_folder}; make it as "
        f"root for the user of the agent: install -d -o USER -m 700 {state}, or name another folder"
    )
    assert "state.runtime_folder" in second
    assert "owner" not in first + second


@as_root
def test_folders_that_systemd_makes_need_not_exist_before_the_first_start(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, runtime, unit = (open_folder / name for name in ("lib", "run", "headunit-agent.service"))
    monkeypatch.setattr(module, "SERVICE_FOLDERS", (state, runtime))
    assert len(_as_nobody(_loaded(state, runtime), [unit]).problems) == 2
    unit.touch()
    assert _as_nobody(_loaded(state, runtime), [unit]).problems == []
    # Another folder is not made by systemd.
    assert len(_as_nobody(_loaded(open_folder / "other", runtime), [unit]).problems) == 1


@as_root
def test_a_folder_that_exists_and_is_not_writable_is_one_problem(open_folder: Path) -> None:
    state = open_folder / "state"
    state.mkdir(mode=0o755)
    (problem,) = _as_nobody(_loaded(state, Path("/dev/shm/never-made")), []).problems
    assert problem == (
        f"agent.toml: state.folder: this user cannot write to {state}; let its owner run the command, or name another "
        "folder"
    )


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    (problem,) = check_folders(_loaded(tmp_path / "state", tmp_path / "runtime"), []).problems
    assert f"{tmp_path}/state is not a folder; remove it, or name another folder" in problem


def test_installing_makes_the_folder_of_the_state_and_the_service_makes_both() -> None:
    systemd = Path(__file__).parents[3] / "systemd"
    assert (
        "d /var/lib/headunit-agent 0700 headunit-agent headunit-agent -"
        in (systemd / "headunit-agent.tmpfiles").read_text().splitlines()
    )
    unit = (systemd / "headunit-agent.service").read_text().splitlines()
    assert {"StateDirectory=headunit-agent", "RuntimeDirectory=headunit-agent"} <= set(unit)
    assert [folder.name for folder in module.SERVICE_FOLDERS] == ["headunit-agent"] * 2
