"""A command that changes keys on a full disk changes nothing that counts, says so, and works once there is room."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet.__main__ import main
from fleet.admin.key_list import list_keys
from fleet.state.folder import FleetFolder
from tests.fleet.vehicles import make_fleet
from tests.small_disk import NoDisk, small_disk

COMMANDS = ["rotate sealing", "rotate authority", "renew broker", "renew receiver", "root start --replace targets"]


def test_every_command_names_the_file_and_succeeds_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with small_disk(tmp_path / "disk") as disk:
            fleet = make_fleet(disk.folder / "fleet")
            disk.fill()
            before = lines(fleet)
            for command in COMMANDS:
                assert run(fleet, tmp_path, command) == 1, command
                said = capsys.readouterr().err
                assert str(fleet.root) in said
                assert "No space left on device" in said
            assert lines(fleet) == before
            disk.free()
            assert [run(fleet, tmp_path, command) for command in COMMANDS] == [0] * len(COMMANDS)
    except NoDisk as error:
        pytest.skip(str(error))


def run(fleet: FleetFolder, folder: Path, command: str) -> int:
    out = ["--out", str(folder / "ceremony.json")] if command.startswith("root") else []
    return main(["keys", *command.split(), *out, "--fleet", str(fleet.root)])


def lines(fleet: FleetFolder) -> list[str]:
    return [f"{line.name} {line.id} {line.expires}" for line in list_keys(fleet, datetime.now(UTC)).lines]
