"""Private keys that every user of the machine can read or replace are reported by every command, with the remedy."""

from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.state.exposed_keys import exposed_keys
from fleet.state.folder import FleetFolder
from tests.fleet.conftest import fleet

__all__ = ["fleet"]


def modes(path: Path, folder: int, files: int) -> None:
    path.chmod(folder)
    for file in path.glob("*.pem"):
        file.chmod(files)


def test_a_new_fleet_exposes_no_key(fleet: FleetFolder) -> None:
    assert exposed_keys(fleet) == []
    fleet.root.chmod(0o755)
    assert exposed_keys(fleet) == []


@pytest.mark.parametrize(
    ("root", "folder", "files", "verb"),
    [
        (0o755, 0o755, 0o644, "read"),
        (0o755, 0o777, 0o600, "replace"),
        (0o755, 0o755, 0o600, None),
        (0o755, 0o700, 0o644, None),  # the folder protects the files
        (0o700, 0o777, 0o644, None),
        (0o755, 0o750, 0o640, None),  # a group may be meant to read them
    ],
)
def test_keys_are_exposed_if_others_reach_them(
    fleet: FleetFolder, root: int, folder: int, files: int, verb: str | None
) -> None:
    fleet.root.chmod(root)
    modes(fleet.keys, folder, files)
    found = exposed_keys(fleet)
    assert len(found) == (verb is not None)
    if verb is not None:
        assert f"Every user of this machine can {verb} private keys in {fleet.keys}. Run `chmod 700 " in found[0]
        assert (str(fleet.key("targets")) in found[0]) == (verb == "read")


def test_a_command_says_so_and_works(fleet: FleetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.root.chmod(0o755)
    modes(fleet.keys, 0o755, 0o644)
    modes(fleet.receiver, 0o755, 0o644)
    for command in (["keys", "list"], ["publish"]):
        assert main([*command, "--fleet", str(fleet.root)]) == 0
        said = capsys.readouterr().err
        assert f"fleet: Every user of this machine can read private keys in {fleet.keys}" in said
        assert f"private keys in {fleet.receiver}" in said
