"""`headunit-agent check` accepts the shipped configuration, and one mistake does not hide the next."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.commands.check import check
from agent.commands.check_report import Report
from agent.settings import settings
from agent.settings.plans import bus_plan
from agent.sources import ring_socket
from agent.system.durable import Disk, on
from fleet.admin.enrol import Model, enrol
from tests.agent.car import ROOT, Car, campaign, command, vehicle

MODEL = Model("Aria", "One", "EU", 2026)


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def test_the_shipped_configuration_with_an_enrolled_identity_is_good(car: Car) -> None:
    shipped = car.folder / "shipped"
    shutil.copytree(ROOT / "config", shipped)
    car.identity.rename(shipped / "identity")
    done = command("agent", "check", "--config", shipped / "agent.toml", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["ok"]
    assert report["problems"] == []
    # No head unit sends anything before its owner has named a source.
    assert (report["sources"], report["buses"]) == ([], {})
    assert any("no [[sources]]" in note for note in report["notes"])
    assert len(report["campaigns"]) == 4


def test_the_shipped_campaigns_and_databases_fit_each_other(car: Car) -> None:
    shipped = car.folder / "shipped"
    shutil.copytree(ROOT / "config", shipped)
    car.identity.rename(shipped / "identity")
    file = shipped / "agent.toml"
    # The tables that a newcomer uncomments to drive the virtual vehicle.
    used = r"^# (?=\[bus\.|dbc = |kind = \"virtual_vehicle\")|^# (?=\[\[sources\]\]\n# kind = \"virtual)"
    file.write_text(re.sub(used, "", file.read_text(), flags=re.MULTILINE))
    report = json.loads(command("agent", "check", "--config", file, "--json").stdout)
    assert (report["problems"], set(report["buses"]), report["sources"]) == ([], {"can0", "can1"}, ["vehicle"])
    assert [note for note in report["notes"] if "matches no signal" in note] == []


def test_the_report_is_for_people(car: Car) -> None:
    shown = str(check(car.config)).splitlines()
    assert "buses     can0 messages 23, signals 289" in shown
    assert "sources   vehicle" in shown
    assert shown[-1] == f"{car.config}: ok"


def test_several_mistakes_are_found_at_once(car: Car) -> None:
    (car.identity / "acks.pub.pem").unlink()
    (car.campaigns / "broken.json").write_text("[]")
    (car.folder / "state").write_text("a file")
    car.write(sources='[[sources]]\nkind = "replay"\nlog = "nowhere.log"')
    car.config.write_text(car.config.read_text().replace("demo_powertrain", "no_powertrain"))
    done = command("agent", "check", "--config", car.config, "--json")
    problems = json.loads(done.stdout)["problems"]
    assert done.returncode == 1
    for word in ("acks.pub.pem", "broken.json", "state.folder", "nowhere.log", "no_powertrain.dbc"):
        assert sum(word in problem for problem in problems) == 1, (word, problems)
    assert len(problems) == 5
    assert len(done.stderr.splitlines()) == 5


def test_what_is_worth_knowing_is_a_note_and_no_problem(car: Car) -> None:
    shutil.rmtree(car.identity)
    enrol(car.fleet, car.identity, MODEL, days=20, now=datetime.now(UTC) - timedelta(days=1))
    (car.campaigns / "odd.json").write_bytes(campaign("odd", signals="Warp.Drive"))
    car.write(spool="quota_mb = 900000000")
    text = car.config.read_text().replace("[bus.can1]", "[bus.can7]")
    car.config.write_text(text)
    report = check(car.config)
    assert report.ok, report.problems
    for words in ("certificate expires on", "'Warp.Drive' matches no signal", "can1 has no", "[bus.can7]", "free on"):
        assert sum(words in note for note in report.notes) == 1, (words, report.notes)


@pytest.mark.parametrize(
    ("tables", "remedies"),
    [
        ({"can0": "can7", "can1": "can8"}, ["name the table [bus.can", "name the table [bus.can"]),
        ({"can0": "powertrain", "can1": "body"}, ["name the table after one of these buses"] * 2),
    ],
)
def test_tables_that_no_source_fits_are_problems_because_nothing_can_be_collected(
    car: Car, tables: dict[str, str], remedies: list[str]
) -> None:
    text = car.config.read_text()
    for bus, wrong in tables.items():
        assert f"[bus.{bus}]" in text
        text = text.replace(f"[bus.{bus}]", f"[bus.{wrong}]")
    car.config.write_text(text)
    done = command("agent", "check", "--config", car.config, "--json")
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert len(problems) == len(remedies)
    for problem, wrong, remedy in zip(problems, tables.values(), remedies, strict=True):
        assert (
            f"[bus.{wrong}]: no source delivers this bus, and no bus of the sources (can0, can1) has a table" in problem
        )
        assert f"so no campaign can collect anything; {remedy}" in problem


def test_the_only_bus_of_the_sources_is_the_remedy_whatever_its_name(car: Car) -> None:
    car.write(sources='[[sources]]\nkind = "packet_ring"\nbus = "motor"\ninterface = "can0"')
    problems = [each for each in check(car.config).problems if "[bus." in each]
    assert problems
    assert all(each.endswith("name the table [bus.motor]") for each in problems), problems


def conditional(name: str, expression: str, ring: int = 1_000) -> bytes:
    return json.dumps(
        {
            "name": name,
            "collectionScheme": {"conditionBasedCollectionScheme": {"expression": expression}},
            "signalsToCollect": [{"name": "VehicleMotion.Speed", "maxSampleCount": ring}],
        }
    ).encode()


def test_conditions_that_the_vehicle_would_refuse_are_problems_and_the_memory_of_the_others_is_shown(car: Car) -> None:
    speed = "$variable.`Vehicle.VehicleMotion.Speed`"
    (car.campaigns / "good.json").write_bytes(conditional("good", f"{speed} > 5"))
    (car.campaigns / "huge.json").write_bytes(conditional("huge", f"{speed} > 5", 2_000_000))
    (car.campaigns / "odd.json").write_bytes(conditional("odd", f"{speed} > 5 && $variable.`Warp.Drive` > 1"))
    report = check(car.config)
    huge, odd = report.problems
    assert "huge.json: its rings take up to 32,004,000 bytes of memory" in huge
    assert "telemetry.rings_mb" in huge
    assert "odd.json: collectionScheme.conditionBasedCollectionScheme.expression, character 48: no database" in odd
    assert report.facts["rings"] == {"good": "up to 20,000 bytes"}
    assert "rings     good up to 20,000 bytes" in str(report).splitlines()


def test_an_agent_with_nothing_to_do_is_told_so(car: Car) -> None:
    shutil.rmtree(car.campaigns)
    car.write(sources="")
    report = check(car.config)
    assert report.ok
    assert any("no [[sources]]" in note for note in report.notes)
    assert any("no campaigns" in note for note in report.notes)


def test_two_sources_of_one_bus_are_a_problem(car: Car) -> None:
    car.write(sources=vehicle() + "\n" + vehicle())
    report = check(car.config)
    (problem,) = report.problems
    assert "both deliver bus can0" in problem
    assert not any("no source delivers" in note for note in report.notes)


@pytest.mark.parametrize(
    ("start", "words"), [("yesterday", "not an ISO 8601"), ("2026-07-01T08:00:00", "no time zone")]
)
def test_a_start_that_is_no_time_is_a_problem(car: Car, start: str, words: str) -> None:
    car.write(sources=f'[[sources]]\nkind = "virtual_vehicle"\nstart = "{start}"')
    (problem,) = check(car.config).problems
    assert "sources[0].start" in problem
    assert words in problem


def test_check_leaves_no_trace(car: Car) -> None:
    before = sorted(car.folder.rglob("*"))
    assert check(car.config).ok
    assert sorted(car.folder.rglob("*")) == before


def test_an_interface_that_python_can_does_not_have_is_a_problem(car: Car) -> None:
    source = '[[sources]]\nkind = "python_can"\nbus = "can0"\nchannel = "can0"\ninterface = '
    car.write(sources=source + '"socketcna"')
    (problem,) = check(car.config).problems
    assert "sources[0].interface: python-can has no interface 'socketcna'; did you mean 'socketcan" in problem
    car.write(sources=source + '"warp"')
    (problem,) = check(car.config).problems
    assert "its interfaces are canalystii" in problem
    car.write(sources=source + '"virtual"')
    assert check(car.config).ok


def test_a_folder_of_campaigns_that_is_named_and_missing_is_a_problem(car: Car) -> None:
    car.write(telemetry='campaigns = "campaings"')
    report = check(car.config)
    (problem,) = report.problems
    assert "telemetry.campaigns" in problem
    assert "campaings is not a folder" in problem
    assert not any("no campaigns" in note for note in report.notes)


def test_an_unknown_field_of_a_campaign_is_a_problem_with_the_nearest_known_one(car: Car) -> None:
    (car.campaigns / "odd.json").write_bytes(campaign("odd", expirytime="2030-01-01T00:00:00Z", description="a drive"))
    (problem,) = check(car.config).problems
    assert problem.endswith("odd.json: unknown field 'expirytime'; did you mean 'expiryTime'?")


def test_a_repaired_database_is_a_note_with_file_and_line_and_a_problem_if_strict(car: Car) -> None:
    odd = car.folder / "odd.dbc"
    odd.write_text('BO_ 801 Engine: 8 Motor\n SG_ Rpm : 0|16@1+ (.25,0) [0|0] "1/min" Gauge\n')
    _give(car, f'"{odd}"')
    note = f"bus.can0: {odd}: line 2: Engine.Rpm: a number has no digit before its point"
    report = check(car.config)
    assert (report.problems, [one[: len(note)] for one in _of_databases(report)]) == ([], [note])
    strict = command("agent", "check", "--config", car.config, "--strict")
    assert strict.returncode == 1
    assert note in strict.stderr


def test_the_encoding_of_a_database_is_a_key_and_an_option(car: Car) -> None:
    odd = car.folder / "odd.dbc"
    odd.write_bytes('BO_ 801 Engine: 8 Motor\n SG_ Rpm : 0|16@1+ (1,0) [0|0] "об/мин" Gauge\n'.encode("cp1251"))
    _give(car, f'"{odd}"')
    (note,) = _of_databases(check(car.config))
    assert "was read as cp1252" in note
    assert _of_databases(check(car.config, encoding="cp1251")) == []
    assert "line 2: the text is not ascii" in check(car.config, encoding="ascii").problems[0]
    _give(car, f'{{file = "{odd}", encoding = "cp1251"}}')
    assert _of_databases(check(car.config, encoding="ascii")) == []
    plan = bus_plan(settings.load(car.config), "can0")
    assert plan.messages[0].signals[0].unit == "об/мин"
    _give(car, f'{{file = "{odd}", encoding = "klingon"}}')
    assert "bus.can0.dbc: " in (problem := check(car.config).problems[0])
    assert "encoding 'klingon' is unknown; name one of" in problem


def _of_databases(report: Report) -> list[str]:
    return [note for note in report.notes if note.startswith("bus.")]


def _give(car: Car, database: str) -> None:
    """Let the first bus of the configuration have only `database`, which is written in TOML."""
    car.config.write_text(re.sub(r"dbc = \[.*\]", lambda _: f"dbc = [{database}]", car.config.read_text(), count=1))


def test_a_broken_database_brings_no_notes_about_campaigns(car: Car) -> None:
    (car.campaigns / "more.json").write_bytes(campaign("more", signals="EngineData.*"))
    car.config.write_text(car.config.read_text().replace("demo_powertrain", "no_powertrain"))
    report = check(car.config)
    assert len(report.problems) == 1
    assert not any("matches no signal" in note for note in report.notes)


RING = '[[sources]]\nkind = "packet_ring"\nbus = "{bus}"\ninterface = "{interface}"\n'


def test_it_says_which_way_frames_come_from_each_live_bus_and_why(car: Car) -> None:
    by_python_can = '[[sources]]\nkind = "python_can"\nbus = "can1"\ninterface = "virtual"\nchannel = "x"\n'
    car.write(sources=RING.format(bus="can0", interface="can0") + by_python_can)
    report = check(car.config)
    assert report.ok, report.problems
    assert report.facts["capture"]["can1"] == "python-can (virtual), as configured"
    if ring_socket.unavailable() is None:
        assert report.facts["capture"]["can0"].startswith("packet ring (CAP_NET_RAW is held, kernel ")
    else:
        assert "python-can (socketcan)" in report.facts["capture"]["can0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its capabilities here")
def test_without_the_capability_it_names_it_and_the_way_that_is_left(car: Car) -> None:
    car.write(sources=RING.format(bus="can0", interface="can0"))
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-m", "agent"]
    arguments = ["check", "--json", "--config", str(car.config)]
    done = subprocess.run([*without, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    report = json.loads(done.stdout)
    assert report["capture"]["can0"] == (
        "packet ring in the service, which has CAP_NET_RAW; python-can (socketcan) for this user, which lacks it"
    )
    (note,) = [note for note in report["notes"] if "CAP_NET_RAW" in note]
    assert "this user lacks CAP_NET_RAW. The service unit grants it, so the service uses the packet ring" in note
    assert "an agent that this user starts falls back to python-can" in note


def test_an_interface_that_is_not_there_is_a_note_and_one_that_is_no_can_interface_a_problem(car: Car) -> None:
    car.write(sources=RING.format(bus="can0", interface="can77") + RING.format(bus="can1", interface="lo"))
    report = check(car.config)
    assert [p.partition("sources[1].interface: ")[2] for p in report.problems] == [
        "lo is not a CAN interface; name another one"
    ]
    assert "source can0: interface can77 does not exist; the agent waits until it is up" in report.notes


def test_too_little_free_space_is_a_problem_that_names_the_key(car: Car) -> None:
    car.write(spool="reserve_mb = 1e9")
    report = check(car.config)
    (problem,) = report.problems
    assert "spool.reserve_mb" in problem
    assert "are sent from there while the link is up" in problem


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_takes_no_data_is_a_problem(car: Car, code: int) -> None:
    class Refusing(Disk):
        def create_file(self, path: Path, content: bytes) -> None:
            raise OSError(code, os.strerror(code))

    car.state.mkdir()
    with on(Refusing()):
        (problem,) = check(car.config).problems
    assert os.strerror(code) in problem
    assert "state.folder" in problem
    assert check(car.config).ok
    assert list(car.state.iterdir()) == []
