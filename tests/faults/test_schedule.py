"""The schedule is repeatable, has no overlaps, and has every kind of fault even in a minute."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.attacks.test_hostile_vehicle import ATTACKS
from tests.faults.schedule import HOSTILE, IMAGE, PLANS, STOPPED, Kind, Restored, Track, chapters, faults

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


def test_every_attack_of_a_hostile_vehicle_is_a_fault() -> None:
    assert [kind.value for kind in HOSTILE] == list(ATTACKS)


@given(SEEDS, st.floats(30, 2_000))
def test_chapters_follow_each_other_and_all_but_the_last_end_with_a_restored_disk(seed: int, seconds: float) -> None:
    found = chapters(seed, seconds)
    assert found == chapters(seed, seconds)
    assert len(found) >= 2
    assert [chapter.begins_s for chapter in found[1:]] == [chapter.ends_s for chapter in found[:-1]]
    assert (found[0].begins_s, round(found[-1].ends_s, 6)) == (0.0, round(seconds, 6))
    assert [chapter.restored is None for chapter in found] == [False] * (len(found) - 1) + [True]


@given(SEEDS)
def test_six_minutes_put_back_every_disk(seed: int) -> None:
    assert {chapter.restored for chapter in chapters(seed, 360)} == {*Restored, None}


@given(SEEDS, st.floats(60, 1_000))
def test_images_are_taken_in_the_middle_of_the_chapter_that_ends_with_them(seed: int, seconds: float) -> None:
    for chapter in chapters(seed, seconds):
        length_s = chapter.ends_s - chapter.begins_s
        assert set(chapter.images) == set(STOPPED[chapter.restored] if chapter.restored else ())
        for image in chapter.images.values():
            assert IMAGE[0] <= (image.at_s - chapter.begins_s) / length_s <= IMAGE[1] + 0.001


@given(SEEDS, TRACKS)
def test_each_fault_is_in_one_chapter_and_ends_with_it(seed: int, track: Track) -> None:
    campaign = faults(seed, track, 360)
    parts = chapters(seed, 360)
    of_chapters = [(fault, chapter) for chapter in parts for fault in chapter.of(campaign)]
    assert [fault.at_s for fault, _ in of_chapters] == [fault.at_s for fault in campaign]
    assert all(fault.at_s + fault.lasts_s <= chapter.ends_s + 0.001 for fault, chapter in of_chapters)
