"""Test the toggles of ../shared/cases/faults, where this folder is present."""

from pathlib import Path

import pytest

from agent.formats.down.audience import Attributes
from agent.formats.down.evaluation import vehicle_context
from tests.agent.formats.down.murmur import by_cbor, by_text, fractional
from tests.agent.formats.down.test_toggles import checked
from tests.agent.formats.down.test_vehicle_rules import OPERATORS, file_of, ofrep, read, serving
from tests.shared_data import require

pytestmark = pytest.mark.shared
FAULTS = require().parent / "cases" / "faults"


def car(year: int = 2026, number: int = 1) -> Attributes:
    return Attributes(f"{number:032x}", "Aria", "One", "EU", year)


@pytest.mark.parametrize(("year", "value"), [(2026, "A"), (2030, "B")])
def test_a_division_is_accepted(year: int, value: str) -> None:
    content = (FAULTS / "toggles-division" / "f01_div.json").read_bytes()
    assert checked(content, car(year)).evaluate("f", vehicle_context(car(year))).value == value


def test_a_subtraction_takes_any_number_of_arguments() -> None:
    content = (FAULTS / "toggles-division" / "f02_minus3.json").read_bytes()
    assert checked(content, car()).evaluate("f", {}).value == "A"


def test_ofrep_and_both_kinds_of_readers_agree_on_the_shares() -> None:
    content = Path(FAULTS / "toggles-fractional-two-answers" / "new-nav.json").read_bytes()
    for number in range(300):
        vehicle = car(number=number)
        asked = ofrep(serving(content, vehicle), "new-nav", {})
        for hashed in (by_text, by_cbor):
            reader = OPERATORS | {"fractional": fractional(hashed)}
            assert read(file_of(content, vehicle), "new-nav", {}, reader) == asked
