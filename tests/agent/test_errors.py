"""Test errors from exception groups, and suggestions for misspelt words."""

import pytest

from agent.errors import Permanent, Transient, did_you_mean, ungrouped


def test_the_first_error_of_nested_groups_is_raised_in_their_place() -> None:
    with pytest.raises(Permanent, match="first") as caught, ungrouped():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [Permanent("first")]), Transient("second")])
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_a_group_with_an_error_of_the_programmer_stays_whole() -> None:
    with pytest.raises(ExceptionGroup) as caught, ungrouped():
        raise ExceptionGroup("outer", [Permanent("ours"), ZeroDivisionError()])
    assert len(caught.value.exceptions) == 2


def test_only_a_near_word_is_suggested() -> None:
    assert did_you_mean("in_flght", ["in_flight", "ack"]) == "did you mean 'in_flight'?"
    assert did_you_mean("colour", ["in_flight", "ack"]) == ""
