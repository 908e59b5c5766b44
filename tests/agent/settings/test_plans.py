"""Compiled databases come from the cache or from a child process, so that the agent never imports cantools."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import Permanent
from agent.settings import settings
from agent.settings.plans import bus_plan, bus_plans
from tests.agent.car import ROOT, Car

START = """
import sys
from pathlib import Path
from agent.settings import settings
from agent.runtime.configuration import read_configuration

configuration = read_configuration(settings.load(Path(sys.argv[1])))
assert all(plan.messages for plan in configuration.plans.values()) and len(configuration.plans) == 2
print("cantools" in sys.modules)
"""


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car.make(tmp_path)


def start(car: Car) -> str:
    command = [sys.executable, "-c", START, str(car.config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_the_process_that_runs_never_imports_cantools(car: Car) -> None:
    assert start(car) == "False"  # cold: compiled by another process
    assert len(list((car.folder / "state" / "plans").iterdir())) == 2
    assert start(car) == "False"


def test_where_nothing_can_be_kept_plans_are_compiled_all_the_same(car: Car) -> None:
    (car.folder / "state").mkdir(exist_ok=True)
    (car.folder / "state" / "plans").write_text("in the way")
    loaded = settings.load(car.config)
    assert bus_plans(loaded) == {bus: bus_plan(loaded, bus) for bus in ("can0", "can1")}


def test_a_database_with_a_mistake_is_named_with_its_bus(car: Car) -> None:
    wrong = car.folder / "wrong.dbc"
    wrong.write_text("nonsense")
    text = car.config.read_text()
    car.config.write_text(text.replace(text.split('dbc = ["')[1].split('"')[0], str(wrong)))
    with pytest.raises(Permanent, match=r"bus\.can0\.dbc: .*wrong\.dbc"):
        bus_plans(settings.load(car.config))


def test_a_bus_of_a_database_file_can_be_chosen(car: Car) -> None:
    several = car.folder / "several.kcd"
    message = '<Message id="0x{0}" name="{1}" length="1"><Signal name="S" offset="0" length="8"/></Message>'
    buses = "".join(f'<Bus name="{name}">{message.format(71, name + "State")}</Bus>' for name in ("Drive", "Cabin"))
    several.write_text(f'<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0">{buses}</NetworkDefinition>')
    text = car.config.read_text()
    first = text.split('dbc = ["')[1].split('"')[0]
    for name in ("Drive", "Cabin"):
        car.config.write_text(text.replace(first, f"{several}#{name}"))
        plan = bus_plans(settings.load(car.config))["can0"]
        assert [m.name for m in plan.messages] == [f"{name}State"]
    car.config.write_text(text.replace(first, str(several)))
    with pytest.raises(Permanent, match=r"bus\.can0\.dbc: .* choose one of its buses by name, as in FILE#"):
        bus_plans(settings.load(car.config))
