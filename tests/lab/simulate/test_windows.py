"""Test the batches that virtual vehicles send."""

import numpy as np

from agent.formats.up.columns import Clock, ClockQuality
from agent.formats.up.decode import decode_window
from agent.formats.up.encode import encode_window
from lab.simulate.windows import DRIVES, record

CLOCK = Clock(ClockQuality.NETWORK, "boot", 1_760_000_000_000_000, 5)


def test_a_window_is_moved_to_the_time_asked_for_and_read_by_its_catalogue() -> None:
    recording = record(3.0)
    assert len(recording.windows) == DRIVES
    window = recording.window(DRIVES + 1, 1_760_000_003_000_000, CLOCK)
    assert (window.start_us, window.end_us, window.clock) == (1_760_000_000_000_000, 1_760_000_003_000_000, CLOCK)
    times = np.concatenate([group.t_us for group in window.groups])
    assert window.start_us <= times.min()
    assert times.max() < window.end_us
    assert 200 < window.samples < 500  # some 130 signals, once a second
    body = encode_window(window, recording.catalogue)
    again = decode_window(body, {recording.catalogue.digest: recording.catalogue}.get)
    assert again.samples == window.samples
    assert again.groups[0].texts == window.groups[0].texts
