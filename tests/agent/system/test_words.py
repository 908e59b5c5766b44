"""A number and its noun agree."""

import pytest

from agent.system.words import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 vehicles"), (1, "1 vehicle"), (2000, "2,000 vehicles")])
def test_one_has_no_s(number: int, text: str) -> None:
    assert counted(number, "vehicle") == text
