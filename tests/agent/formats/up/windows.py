"""Generates random windows with hypothesis, and compares windows, for the tests of the codec and of fragments."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.formats.up.columns import Clock, ClockQuality, ColumnGroup, Event, SignalInfo, Window
from agent.formats.up.encode import encode_fragments
from agent.formats.up.limits import MAX_TRIGGER
from can_dbc.values import Kind, text_keys

CLOCK = Clock(ClockQuality.NETWORK, "6f1c1c5e-8f0e-4a55-9d3c-0d3f5f7f5f10", 1_700_000_000_000_000, 42)
INT64 = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(max_size=12)
_NAMES = st.from_regex(r"[A-C](\.[A-C]){0,2}", fullmatch=True)
_FLOATS = st.floats(width=64, allow_nan=False)
SIGNALS = st.builds(
    SignalInfo,
    _NAMES,
    st.sampled_from(["can0", "can1"]),
    st.none() | st.text(min_size=1, max_size=5),
    st.sampled_from(Kind),
    st.integers(1, 64),
    _FLOATS,
    _FLOATS,
)
EVENTS = st.builds(
    Event, INT64, _TEXT, st.dictionaries(_TEXT, st.one_of(_TEXT, INT64, _FLOATS, st.booleans()), max_size=4)
)


@st.composite
def groups(draw):
    signals = draw(st.lists(SIGNALS, min_size=1, max_size=4))
    count = draw(st.integers(1, 8))
    times = draw(hnp.arrays(np.int64, count, elements=INT64 | st.integers(0, 3)))
    raw = draw(hnp.arrays(np.int64, (len(signals), count), elements=INT64 | st.integers(0, 3)))
    tables = tuple(
        {key: draw(_TEXT) for key in text_keys(info, row[: draw(st.integers(0, 2))]).tolist()}
        for info, row in zip(signals, raw, strict=True)
    )
    trigger = draw(st.none() | st.integers(1, MAX_TRIGGER))
    return ColumnGroup(times, tuple(signals), raw, tables, draw(st.none() | st.integers(0, 255)), trigger=trigger)


WINDOWS = st.builds(
    Window,
    _TEXT,
    _TEXT,
    INT64,
    INT64,
    st.builds(Clock, st.sampled_from(ClockQuality), _TEXT, INT64, INT64),
    st.lists(groups(), max_size=4).map(tuple),
    st.lists(EVENTS, max_size=3).map(tuple),
)


def window(*groups, events=(), start_us=0, end_us=10_000_000):
    return Window("drive", "0123456789ab", start_us, end_us, CLOCK, tuple(groups), tuple(events))


def signal(name, **others):
    return SignalInfo(
        **{"bus": "can0", "unit": None, "kind": Kind.UINT, "bits": 8, "scale": 1.0, "offset": 0.0, **others},
        name=name,
    )


def encode_all(window, max_bytes, catalogue=None):
    """Encode a window in fragments of at most `max_bytes`, and return their bodies."""
    return [body for _, body in encode_fragments(window, max_bytes, catalogue)]


def plain(window):
    """Return the content of a window as values that compare bit for bit (`repr` distinguishes 0.0 from -0.0)."""
    return (
        (window.id, window.campaign, window.revision, window.start_us, window.end_us, window.clock),
        [
            (
                group.source_address,
                group.trigger,
                group.t_us.tolist(),
                repr(group.signals),
                group.raw.tolist(),
                [dict(t) for t in group.texts],
            )
            for group in window.groups
        ],
        [(event.t_us, event.kind, repr(sorted(event.fields.items()))) for event in window.events],
    )


def samples(windows):
    """Return all samples of `windows`, sorted, as (signal, sender, trigger, t, raw, text)."""
    return sorted(
        (repr(info), repr(group.source_address), repr(group.trigger), t, raw, texts.get(raw, ""))
        for window in windows
        for group in window.groups
        for info, row, texts in zip(group.signals, group.raw.tolist(), group.texts, strict=True)
        for t, raw in zip(group.t_us.tolist(), row, strict=True)
    )
