"""`headunit-agent status` answers for a running agent, for a dead one, and before the first start."""

import http.client
import json
import os
import socket
from pathlib import Path

import pytest

from agent.commands.status_text import render, source_text
from agent.settings.identity import pseudonym
from tests.agent.car import Car, command

pytestmark = pytest.mark.integration


def test_an_agent_without_a_source_says_that_it_collects_nothing(car: Car) -> None:
    car.write(sources="")
    with car.running() as agent:
        agent.until_ready()
        text = command("agent", "status", "--config", car.config).stdout
        said = [json.loads(line) for line in agent.log.read_text().splitlines() if "no_sources" in line]
    checked = command("agent", "check", "--config", car.config)
    assert "source    none: there are no [[sources]] in agent.toml, so the agent collects nothing" in text
    assert [line["level"] for line in said] == ["warning"]
    for shown in (said[0]["reason"], checked.stdout):
        assert "there are no [[sources]], so the agent collects nothing" in shown
        assert "add a source" in shown
    assert checked.returncode == 0


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def test_a_running_agent_answers_and_a_dead_one_leaves_its_account(car: Car) -> None:
    with car.running() as agent:
        agent.until_status(lambda s: s["spool"]["waiting"] >= 2 and s["link"]["problem"], "storing")
        text = command("agent", "status", "--config", car.config)
        answer = json.loads(command("agent", "status", "--config", car.config, "--json").stdout)
    assert text.returncode == 0
    for word in (
        "vehicle",
        "source    vehicle running",
        "campaign  everything",
        "link",
        "nothing listens",
        "lanes     events, live, backlog",
        "batches",
    ):
        assert word in text.stdout
    assert answer["vehicle"] == pseudonym(car.identity)
    assert answer["running"]
    assert answer["uptime_s"] > 0
    dead = command("agent", "status", "--config", car.config)
    assert dead.returncode == 1
    assert "is not running, or is still starting; see its log (of the service: journalctl -u headunit" in dead.stdout
    assert "waiting" in dead.stdout


@pytest.mark.attack(
    "19",
    "an app asks for the pseudonym of the vehicle",
    how="An app asks a real agent at each of its paths.",
    before="/status told it",
)
def test_no_answer_of_the_agent_tells_an_app_the_pseudonym_of_the_vehicle(car: Car) -> None:
    with car.running() as agent:
        agent.until_status(lambda s: s["spool"]["waiting"] >= 1 and s["link"]["problem"], "storing")
        for method, path, body in (
            ("GET", "/status", ""),
            ("POST", "/ofrep/v1/evaluate/flags", "{}"),
            ("POST", "/ofrep/v1/evaluate/flags/none", "{}"),
            ("POST", "/ofrep/v1/evaluate/flags/none", '{"context": {"targetingKey": 7}}'),
            ("GET", "/nowhere", ""),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", car.serve_port, timeout=5)
            connection.request(method, path, body)
            assert pseudonym(car.identity).encode() not in connection.getresponse().read()
            connection.close()


def test_where_no_agent_ever_ran_it_says_so(car: Car) -> None:
    done = command("agent", "status", "--config", car.config)
    assert done.returncode == 1
    assert "no spool in" in done.stdout
    assert not (car.folder / "state").exists()


def test_another_program_on_the_port_is_named_and_never_asked_for_the_status(car: Car) -> None:
    with socket.create_server(("127.0.0.1", car.serve_port)) as other:
        other.settimeout(0)
        with car.running():
            shown = command("agent", "status", "--config", car.config)
        assert shown.returncode == 0, shown.stderr
        assert (
            f"serves    127.0.0.1:{car.serve_port}: A program of the user {os.geteuid()} holds the port" in shown.stdout
        )
        assert f"serves    {car.socket}\n" in shown.stdout
        with pytest.raises(BlockingIOError):
            other.accept()


def test_the_status_is_shown_for_a_port_that_only_the_log_knows(car: Car) -> None:
    car.write(serve_port=0)
    with car.running():
        shown = command("agent", "status", "--config", car.config, "--json")
    assert [each["problem"] for each in json.loads(shown.stdout)["addresses"]] == [None, None]


def test_a_source_that_waits_is_shown_with_the_reason_and_one_without_a_frame_as_open() -> None:
    problem = "there is no interface can9; the agent waits until it is there"
    source = {"name": "can0", "state": "waiting", "problem": problem}
    assert source_text(source) == f"waiting: {problem}"
    assert source_text({"name": "can0", "state": "open", "problem": None}) == "open, no frame yet"
    assert source_text({"name": "can0", "state": "running", "problem": None}) == "running"


def test_a_bus_whose_interface_cannot_be_opened_says_why_in_the_status(car: Car) -> None:
    car.write(sources='[[sources]]\nkind = "python_can"\nbus = "can0"\ninterface = "socketcan"\nchannel = "can77"')
    with car.running() as agent:
        agent.until_status(lambda s: "can77" in str(s["sources"][0]["problem"]), "waiting with a reason")
        text = command("agent", "status", "--config", car.config).stdout
    assert "source    can0 waiting: socketcan can77 cannot be opened: " in text
    assert "connect it, or correct `channel`" in text


def test_losses_and_toggles_are_shown() -> None:
    spool = {
        "next_seq": 7,
        "acknowledged": 1,
        "waiting": 1,
        "waiting_bytes": 500,
        "adopted": 0,
        "checkpoints": 1,
        "checkpoints_bytes": 90,
    }
    lost = {"evicted_age": {"batches": 1, "samples": 20, "frames": 0}}
    assert "lost      evicted_age: 1 batch, 20 samples" in render({"running": False, "spool": spool | {"lost": lost}})
