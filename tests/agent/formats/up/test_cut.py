import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.formats.up.columns import ColumnGroup, Event
from agent.formats.up.cut import cut
from tests.agent.formats.up.windows import WINDOWS, plain, samples, signal, window


def _group(t_us, name="A.x"):
    t_us = np.array(t_us, np.int64)
    return ColumnGroup(t_us, (signal(name),), np.arange(len(t_us))[None, :], ({0: "first"},))


def _size(original):
    return original.samples + len(original.events)


@given(WINDOWS.filter(lambda w: _size(w) > 1), st.integers(2, 9))
def test_fragments_hold_every_sample_and_event_once_and_are_each_smaller(original, parts):
    cuts = cut(original, parts)
    assert 2 <= len(cuts) <= parts
    assert samples(cuts) == samples([original])
    assert [event for part in cuts for event in part.events] == list(original.events)
    assert all(0 < _size(part) < _size(original) for part in cuts)
    assert [plain(part) for part in cut(original, parts)] == [plain(part) for part in cuts]


def test_a_window_is_cut_at_moments_that_balance_its_samples_and_join_without_gap():
    parts = cut(window(_group(range(900)), start_us=-5, end_us=1_000), 3)
    assert [part.samples for part in parts] == [300, 300, 300]
    assert [(part.start_us, part.end_us) for part in parts] == [(-5, 300), (300, 600), (600, 1_000)]


def test_samples_keep_their_order_within_a_fragment_where_times_step_back():
    first, second = cut(window(_group([5, 1, 9, 2, 8, 8])), 2)
    assert first.groups[0].t_us.tolist() == [5, 1, 2]
    assert second.groups[0].t_us.tolist() == [9, 8, 8]


def test_only_texts_of_values_that_occur_belong_to_a_fragment():
    first, second = cut(window(_group(range(10))), 2)
    assert [dict(part.groups[0].texts[0]) for part in (first, second)] == [{0: "first"}, {}]


def test_events_are_parted_from_samples_first():
    events, rest = cut(window(_group([1, 2]), events=[Event(1, "start", {})]), 2)
    assert (len(events.events), events.samples) == (1, 0)
    assert (len(rest.events), rest.samples) == (0, 2)
