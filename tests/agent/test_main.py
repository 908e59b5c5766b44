"""The command line shows help with examples, prints results on stdout and errors as one line, and exits with 0 to 2."""

import csv
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version as distribution_version
from pathlib import Path

import pyarrow.parquet
import pytest

from agent import __version__
from agent.__main__ import main
from fleet.__main__ import main as fleet_main
from tests.agent.car import DATABASES, ROOT, campaign, command, drive, write_log
from tests.agent.expected import count_samples

COMMANDS = ("run", "check", "status", "decode", "replay", "estimate", "version")


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_help_of_every_command_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  headunit-agent {verb}" in capsys.readouterr().out


def test_the_help_of_the_demonstration_shows_an_example() -> None:
    done = command("agent", "demo", "--help")
    assert done.returncode == 0
    assert "example:\n  headunit-agent demo" in done.stdout


@pytest.mark.integration
def test_a_demonstration_that_is_interrupted_says_so_in_one_line(tmp_path: Path) -> None:
    command_line = [sys.executable, "-m", "agent", "demo", "--out", str(tmp_path / "demo")]
    arguments = ["env", "--default-signal=INT", *command_line]  # a background job would ignore SIGINT
    with subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as demo:
        assert demo.stderr is not None
        assert "virtual vehicle" in demo.stderr.readline()
        os.killpg(demo.pid, signal.SIGINT)  # a terminal signals the whole process group
        assert demo.stderr.read() == "demo: interrupted\n"
        assert demo.wait(20) == 130


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in (*COMMANDS, "demo"))


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert main(["version", "--json"]) == 0
    plain, as_json = capsys.readouterr().out.splitlines()
    assert plain == f"headunit-agent {json.loads(as_json)['version']}"
    assert json.loads(as_json)["version"] == distribution_version("headunit-agent")


def test_both_programs_know_the_option_version(capsys: pytest.CaptureFixture[str]) -> None:
    for name, program in (("headunit-agent", main), ("fleet", fleet_main)):
        with pytest.raises(SystemExit) as ended:
            program(["--version"])
        assert (ended.value.code, capsys.readouterr().out) == (0, f"{name} {__version__}\n")


@pytest.mark.parametrize("speed", ["-1", "nan", "fast"])
def test_an_impossible_speed_is_wrong_use(speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--log", "drive.log", "--speed", speed])
    assert ended.value.code == 2
    assert f"'{speed}' is not a number that is 0 or greater" in capsys.readouterr().err


def decode(log: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    databases = ("--dbc", f"can0={DATABASES}/demo_powertrain.dbc", "--dbc", f"can1={DATABASES}/demo_body.dbc")
    return command("agent", "decode", "--log", log, *databases, *arguments)


def test_decode_writes_csv_and_parquet_and_reports(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    frames = write_log(log, 1.0)
    samples = count_samples(drive(1.0))
    table, sheet = tmp_path / "drive.parquet", tmp_path / "drive.csv"
    done = decode(log, "--out", table, "--json")
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar where there is no terminal
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["samples"]) == (frames, samples)
    assert pyarrow.parquet.read_table(table).num_rows == samples
    assert decode(log, "--out", sheet).returncode == 0
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == samples
    assert list(rows[0]) == ["t", "bus", "message", "signal", "raw", "value", "text", "unit", "source_address"]


def test_the_summary_of_decode_is_for_people(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    frames = write_log(log, 0.2)
    with log.open("a") as file:
        file.write("(1782892900.000000) can0 7FF#00\n")
    done = decode(log)
    assert done.returncode == 0
    assert f"{frames + 1:,} frames" in done.stdout
    assert "unknown" in done.stdout
    assert "7FF" in done.stdout
    assert "DecodeSummary(" not in done.stdout


def test_control_characters_of_a_log_reach_no_terminal(tmp_path: Path) -> None:
    log = tmp_path / "dri\x1b[31mve.log"
    write_log(log, 0.1)
    with log.open("a") as file:
        file.write("(1782892900.000000) can\x1b[2J\x07 7FF#00\n")
    done = decode(log)
    assert done.returncode == 0
    assert "\\x1b[2J\\x07" in done.stdout
    with log.open("a") as file:
        file.write("(17828\x1b]0;owned\x07\n")
    broken = decode(log)
    assert broken.returncode == 1
    for shown in (done.stdout, broken.stderr):
        assert not [character for character in shown if not character.isprintable() and character != "\n"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "campaigns").mkdir()
    for number in range(500):
        (tmp_path / "campaigns" / f"{number}.json").write_bytes(campaign(f"campaign-{number}-{'x' * 80}"))
    config = tmp_path / "agent.toml"
    config.write_text('[uplink]\nbroker = "localhost:1"\n[identity]\nfolder = "nowhere"\n')
    shown = subprocess.Popen(
        [sys.executable, "-m", "agent", "check", "--config", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert shown.stdout is not None
    assert shown.stderr is not None
    shown.stdout.close()
    assert b"Traceback" not in shown.stderr.read()
    shown.wait(20)
    shown.stderr.close()
