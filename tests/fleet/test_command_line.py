"""The command line as a user meets it: exit statuses and one clear message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.__main__ import main


def test_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("init", "enrol", "revoke", "publish", "receive", "query"):
        with pytest.raises(SystemExit) as leaving:
            main([command, "--help"])
        assert leaving.value.code == 0
        assert f"example:\n  fleet {command}" in capsys.readouterr().out


def test_a_fleet_is_made_and_a_vehicle_enrolled_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ["--fleet", str(tmp_path / "f"), "--json"]
    assert main(["init", *fleet]) == 0
    assert json.loads(capsys.readouterr().out)["suite"] == "MLKEM768_X25519"
    assert main(["init", *fleet]) == 1
    assert "holds a fleet already" in capsys.readouterr().err
    assert main(["enrol", *fleet, "--out", str(tmp_path / "car")]) == 0
    vehicle = json.loads(capsys.readouterr().out)["vehicle"]
    assert main(["revoke", *fleet, vehicle]) == 0
    assert main(["publish", *fleet]) == 0
    assert main(["query", "signals", *fleet]) == 1
    assert "fleet receive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["enrol"],
        ["receive", "--broker", "here"],
        ["receive", "--broker", "here:99999"],
        ["receive", "--partitions", "0-3/4"],
        ["query"],
        ["query", "latest", "--limit", "0"],
    ],
)
def test_wrong_use_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


def test_without_the_cloud_extra_the_message_says_what_to_install(tmp_path: Path) -> None:
    assert main(["init", "--fleet", str(tmp_path / "f")]) == 0
    program = (
        "import sys; sys.modules['deltalake'] = None; from fleet.__main__ import main;"
        f"sys.exit(main(['receive', '--fleet', {str(tmp_path / 'f')!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "pip install 'headunit-agent[fleet]'" in ended.stderr
    assert "Traceback" not in ended.stderr
