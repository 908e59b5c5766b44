"""Test shares of the partitions."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.formats.topics import PARTITIONS
from fleet.receiving.share import Share, parse_share


@given(st.uuids(version=4))
def test_shares_that_split_the_fleet_share_no_vehicle_and_miss_none(vehicle: uuid.UUID) -> None:
    shares = [parse_share(text) for text in ("0-3/16", "4/16", "5-15/16")]
    assert sum(share.has(str(vehicle)) for share in shares) == 1


def test_the_subscriptions_are_those_of_the_partitions() -> None:
    assert parse_share("2-3/16").filters() == ["hu/v1/up/2/#", "hu/v1/up/3/#"]
    assert len(Share().filters()) == PARTITIONS


@pytest.mark.parametrize("text", ["", "1", "3-1/16", "0-16/16", "0-3/8", "a/16", "-1/16", "0-3/16 "])
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Permanent, match="partitions"):
        parse_share(text)
