"""A number and its noun agree."""

import pytest

from agent.system.words import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 vehicles"), (1, "1 vehicle"), (2000, "2,000 vehicles")])
def test_one_is_singular(number: int, text: str) -> None:
    assert counted(number, "vehicle") == text


def test_several_batches() -> None:
    assert (counted(1, "batch"), counted(3, "batch")) == ("1 batch", "3 batches")
