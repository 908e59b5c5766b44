"""The schedule is repeatable, has no overlaps, and has every kind of fault even in a minute."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.faults.schedule import PLANS, Kind, Track, faults

SEEDS = st.integers(0, 2**32)
TRACKS = st.sampled_from(Track)


@given(SEEDS, TRACKS, st.floats(0, 1_000))
def test_a_seed_gives_the_same_faults_again_and_none_overlap(seed: int, track: Track, seconds: float) -> None:
    found = faults(seed, track, seconds)
    assert found == faults(seed, track, seconds)
    assert all(fault.track is track and fault.kind in PLANS[track].kinds for fault in found)
    assert all(earlier.at_s + earlier.lasts_s <= later.at_s + 0.001 for earlier, later in pairwise(found))
    assert all(fault.at_s + fault.lasts_s <= seconds + 0.001 for fault in found)


@given(SEEDS, TRACKS, st.floats(0, 500), st.floats(0, 500))
def test_a_longer_campaign_begins_like_a_shorter_one(seed: int, track: Track, seconds: float, more: float) -> None:
    shorter = faults(seed, track, seconds)
    assert faults(seed, track, seconds + more)[: len(shorter)] == shorter


@given(SEEDS)
def test_a_quarter_of_an_hour_holds_at_least_two_hundred_kills_and_every_kind(seed: int) -> None:
    campaign = [fault for track in Track for fault in faults(seed, track, 900)]
    assert sum(fault.kind is Kind.KILL for fault in campaign) >= 200
    assert {fault.kind for fault in campaign} == set(Kind)


@given(SEEDS)
def test_a_minute_kills_everyone_and_touches_every_track(seed: int) -> None:
    campaign = [fault for track in Track for fault in faults(seed, track, 60)]
    assert {fault.track for fault in campaign if fault.kind is Kind.KILL} == {
        Track.AGENT,
        Track.BROKER,
        Track.RECEIVER,
    }
    assert {fault.track for fault in campaign} == set(Track)
