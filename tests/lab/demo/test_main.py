"""A mistake in the arguments of the demonstration leaves the result of the run before as it is."""

import socket
from pathlib import Path

import pytest

from lab.demo.__main__ import main
from lab.folder import fresh
from tests.agent.car import DATABASES, write_log


@pytest.mark.parametrize("log", ["nothere.log", "empty.log", "foreign.log"])
def test_an_input_that_cannot_be_played_deletes_nothing(
    tmp_path: Path, log: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fresh(tmp_path / "demo") / "drive.png"
    result.write_text("the picture of the last good run")
    (tmp_path / "empty.log").touch()
    (tmp_path / "foreign.log").write_text("(1.0) can0 7FF#01\n")
    arguments = ["--log", str(tmp_path / log), "--dbc", f"can0={DATABASES / 'demo_body.dbc'}"]
    assert main([*arguments, "--out", str(result.parent)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: ")
    assert log in line
    assert result.read_text() == "the picture of the last good run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "empty.log", "foreign.log"]


def test_a_folder_with_files_of_others_is_refused_before_the_input_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").touch()
    log = tmp_path / "drive.log"
    write_log(log, 0.1)
    arguments = ["--log", str(log), "--dbc", str(DATABASES / "demo_body.dbc"), "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "holds files that no earlier run has made" in capsys.readouterr().err


def test_a_machine_without_localhost_is_told_so_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["--out", str(tmp_path / "demo")]) == 1
    assert capsys.readouterr().err == ("demo: localhost cannot be resolved; add `127.0.0.1 localhost` to /etc/hosts\n")
    assert not (tmp_path / "demo").exists()
