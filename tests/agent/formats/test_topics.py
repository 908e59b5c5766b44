import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Untrusted
from agent.formats import topics
from agent.formats.topics import Lane, UpTopic

VEHICLE = "0b8a4a5e-31a6-4a5b-8d43-9b3c5a1de0f1"


@pytest.mark.parametrize("lane", Lane)
def test_an_up_topic_reads_back(lane):
    assert topics.parse_up(topics.up(7, VEHICLE, lane)) == UpTopic(7, VEHICLE, lane)


def test_topics_are_those_of_the_design():
    assert topics.up(7, VEHICLE, Lane.LIVE) == f"hu/v1/up/7/{VEHICLE}/live"
    assert topics.ack(VEHICLE) == f"hu/v1/ack/{VEHICLE}"
    assert topics.sync(VEHICLE) == f"hu/v1/sync/{VEHICLE}"
    assert topics.push(VEHICLE) == f"hu/v1/push/{VEHICLE}"
    assert topics.NUDGE == "hu/v1/nudge"
    assert topics.parse_sync(topics.sync(VEHICLE)) == VEHICLE


@pytest.mark.parametrize(
    "topic",
    [
        f"hu/v1/up/7/{VEHICLE}",
        f"hu/v1/up/07/{VEHICLE}/live",
        f"hu/v1/up/-1/{VEHICLE}/live",
        f"hu/v1/up/7/{VEHICLE.upper()}/live",
        f"hu/v1/up/7/{VEHICLE}/live/",
        f"hu/v1/up/7/{VEHICLE}/fast",
        f"hu/v2/up/7/{VEHICLE}/live",
        "hu/v1/up/7/+/live",
        f"hu/v1/up/7/{VEHICLE}\n/live",
    ],
)
def test_a_topic_of_another_form_is_untrusted(topic):
    with pytest.raises(Untrusted, match="does not have the form hu/v1/up"):
        topics.parse_up(topic)


@given(st.text() | st.text(alphabet="hu/v1p#+sync0-9", max_size=40))
def test_arbitrary_topics_are_untrusted_and_nothing_else(topic):
    for parse in (topics.parse_up, topics.parse_sync):
        with pytest.raises(Untrusted):
            parse(topic)


@given(st.uuids().map(str))
def test_a_partition_is_one_of_the_fleets(vehicle):
    assert 0 <= topics.partition_of(vehicle) < topics.PARTITIONS


def test_the_partition_of_a_vehicle_never_changes():
    assert topics.partition_of(VEHICLE) == 13
