"""Test the command line as a user sees it: exit statuses, and one clear message for each mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from fleet.__main__ import main
from fleet.commands.query import QUESTIONS
from fleet.lake.tables import Lake
from lab.mosquitto import free_port
from tests.agent.car import ROOT
from tests.agent.car import command as program
from tests.agent.pushes.world import campaign


def test_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [["init"], ["enrol"], ["revoke"], ["publish"], ["status"], ["receive"], ["compact"], ["query"]]
    commands += [["rollout", action] for action in ("start", "status", "run", "step", "pause", "resume", "back")]
    commands += [["import"], ["import", "fleetwise"]]
    questions = [["query", question] for question in (*QUESTIONS, "sql")]
    for command in commands + questions:
        with pytest.raises(SystemExit) as leaving:
            main([*command, "--help"])
        assert leaving.value.code == 0
        assert f"example:\n  fleet {' '.join(command)}" in capsys.readouterr().out


def test_the_version_is_the_distributions() -> None:
    shown = program("fleet", "--version")
    assert (shown.returncode, shown.stdout) == (0, f"fleet {__version__}\n")


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
        ["query", "latest", "--limit", "9" * 30],
        ["publish", "--broker", "here"],
        ["rollout"],
        ["rollout", "start", "--broker", "here"],
        ["rollout", "run", "--every", "0"],
        ["status", "--limit", "-1"],
        ["publish", "--expiry-days", "0"],
        ["publish", "--expiry-days", "-4"],
        ["enrol", "--out", "car", "--days", "999999999"],
        ["enrol", "--out", "car", "--model-year", "20260000000000000000"],
        ["compact", "--keep-days", "99999999999"],
        ["compact", "--unneeded-hours", "99999999999999"],
        ["compact", "--target-mb", "99999999999999"],
        ["init", "--broker-name", "münchen.de"],
        ["init", "--broker-name", "mqtt.example.org:8883"],
        ["init", "--broker-name", ""],
        ["init", "--broker-name", "x" * 64],
        ["revoke", "one", "two"],
    ],
)
def test_wrong_use_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


@pytest.mark.parametrize("name", ["mqtt.example.org", "*.example.org", "my_broker", "192.0.2.7", "2001:db8::7"])
def test_a_broker_may_have_any_name_that_certificates_know(name: str, tmp_path: Path) -> None:
    assert main(["init", "--fleet", str(tmp_path / "f"), "--broker-name", name]) == 0


def test_what_stands_in_the_way_of_a_new_fleet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "begun" / "keys").mkdir(parents=True)
    for name, complaint in (("file", "is a file"), ("begun", "interrupted `fleet init`. Remove the folder")):
        assert main(["init", "--fleet", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err
        assert str(tmp_path / name) in said
        assert complaint in said


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """Return the options that select a fleet with an empty lake."""
    fleet = tmp_path / "f"
    assert main(["init", "--fleet", str(fleet)]) == 0
    Lake(str(fleet / "lake"))
    return ["--fleet", str(fleet)]


def test_a_misspelt_vehicle_is_not_one_without_losses(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    nobody = "6f1c1a52-3f0e-4f4e-9c39-0b8f0a3a7d11"
    for question in ("losses", "latest"):
        assert main(["query", question, *asked, nobody]) == 1
    assert main(["compact", *asked, "--keep-days", "9", "--vehicle", nobody]) == 1
    assert capsys.readouterr().err.count(nobody) == 3
    assert main(["query", "losses", *asked]) == 0


def test_the_lake_may_be_named_before_and_after_the_question(asked: list[str], tmp_path: Path) -> None:
    assert main(["query", *asked, "--lake", str(tmp_path / "none"), "latest"]) == 1
    assert main(["query", "latest", *asked, "--lake", str(tmp_path / "none")]) == 1
    assert main(["query", *asked, "--lake", str(tmp_path / "f" / "lake"), "latest"]) == 0
    assert main(["query", "latest", *asked, "--lake", str(tmp_path / "f" / "lake")]) == 0


def test_options_of_a_lake_that_cannot_be_read_are_named(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"\xff\x00")
    for name in ("missing", "rubbish", "f"):
        done = program("fleet", "query", *asked, "--lake-options", tmp_path / name, "latest")
        assert done.returncode == 1
        assert done.stderr.startswith(f"fleet: --lake-options {tmp_path / name}: ")
        assert "Errno" not in done.stderr


def test_the_simulation_reads_its_own_command_line() -> None:
    shown = program("fleet", "simulate", "--help")
    assert shown.returncode == 0
    assert "example:\n  fleet simulate" in shown.stdout
    for wrong in (["--receivers", "17"], ["--minutes", "nan"]):
        assert program("fleet", "simulate", "--vehicles", "1", *wrong).returncode == 2


def test_where_the_report_cannot_go_is_said_before_the_work(tmp_path: Path) -> None:
    done = program("fleet", "simulate", "--vehicles", "1", "--out", tmp_path)
    assert done.returncode == 1
    assert f"--out {tmp_path}: This file cannot be written" in done.stderr


def test_a_simulation_without_its_broker_enrols_nobody(tmp_path: Path) -> None:
    fleet = tmp_path / "f"
    assert main(["init", "--fleet", str(fleet)]) == 0
    done = program("fleet", "simulate", "--fleet", fleet, "--vehicles", "1", "--broker", f"localhost:{free_port()}")
    assert done.returncode == 1
    assert "The broker localhost:" in done.stderr
    assert "does not answer" in done.stderr
    assert not list((fleet / "vehicles").iterdir())


@pytest.mark.parametrize("command", [["receive"], ["simulate", "--vehicles", "1"]])
def test_without_the_cloud_extra_the_message_says_what_to_install(tmp_path: Path, command: list[str]) -> None:
    assert main(["init", "--fleet", str(tmp_path / "f")]) == 0
    program = (
        "import sys; sys.modules['deltalake'] = None; from fleet.__main__ import main;"
        f"sys.exit(main({[*command, '--fleet', str(tmp_path / 'f')]!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "pip install --require-hashes -r requirements/fleet.txt" in ended.stderr
    assert (ROOT / "requirements" / "fleet.txt").is_file()
    assert "Traceback" not in ended.stderr


def test_an_unknown_argument_shows_the_usage_of_its_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rollout", "run", "--broker", "localhost:8884"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: fleet rollout run ")
    assert said.endswith(
        "fleet rollout run: error: unknown arguments: --broker localhost:8884; the documents and the broker are given "
        "to `fleet rollout start`\n"
    )
    with pytest.raises(SystemExit):
        main(["keys", "list", "--brooker"])
    assert capsys.readouterr().err.startswith("usage: fleet keys list ")


def test_documents_of_single_vehicles_are_published_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = ["--fleet", str(tmp_path / "f"), "--json"]
    assert main(["init", *fleet]) == 0
    cars = []
    for number in range(2):
        assert main(["enrol", *fleet, "--out", str(tmp_path / f"car{number}")]) == 0
        cars.append(json.loads(capsys.readouterr().out.splitlines()[-1])["vehicle"])
    for number, car in enumerate(cars):
        campaigns = tmp_path / "individual" / car / "campaigns"
        campaigns.mkdir(parents=True)
        (campaigns / "x.json").write_bytes(campaign(f"own-{number}"))
    one = str(tmp_path / "individual" / cars[0] / "campaigns" / "x.json")
    assert main(["publish", *fleet, "--individual", str(tmp_path / "individual"), "--dry-run"]) == 0
    tried = json.loads(capsys.readouterr().out)
    assert main(["publish", *fleet, "--individual", str(tmp_path / "individual")]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (tried["vehicles"], tried["targets"], made["vehicles"], made["targets"]) == (2, 1, 2, 2)
    assert main(["publish", *fleet, "--vehicle", cars[0], "--remove-campaign", "own-0"]) == 0
    assert main(["publish", *fleet, "--vehicle", cars[1], "--campaign", one]) == 0
    capsys.readouterr()
    assert main(["publish", *fleet, "--vehicle", cars[0], "--remove-campaign", "own-0"]) == 1
    assert "has no own campaign 'own-0'. Its own documents: none" in capsys.readouterr().err
    for wrong, complaint in (
        (["--vehicle", cars[0]], "Please also give --toggles or "),
        (["--vehicle", "typo", "--campaign", one], "Vehicle typo: it is not enrolled"),
        (["--vehicle", cars[0], "--campaign", one, "--audience", "brand=Aria"], "exclude each other"),
        (["--individual", str(tmp_path)], "must be named by a pseudonym"),
    ):
        assert main(["publish", *fleet, *wrong]) == 1
        assert complaint in capsys.readouterr().err
