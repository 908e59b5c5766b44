"""The text logs that strangers' reports led to (../shared/cases/faults) are read right, or refused with the remedy."""

import re

import pytest

from agent.errors import Permanent
from tests import shared_data
from tests.agent.sources.written_log import read

FAULTS = shared_data.DATA.parent / "cases" / "faults"
NOON_US = 1_795_600_800_000_000  # 25 November 2026, 10:00:00 UTC

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("asc-first-frame-lost/h2_noevents_same_line.asc", [1.0, 1.1, 1.2]),
        ("asc-frames-skipped/h8_negative.asc", [-0.2, -0.1, 0.1]),
        ("asc-header-not-read/control.asc", [1.0, 1.1]),
        ("asc-header-not-read/h4_dec_blank_first.asc", [1.0, 1.1]),
        ("asc-header-not-read/h7_weekday_dot.asc", [1.0, 1.1]),
        ("asc-relative-timestamps/h1_relative.asc", [0.5, 1.0, 2.0]),
        ("asc-trigger-blocks/h14_multi_trigger.asc", [5.1, 60.1]),
        ("txrq-counts-twice/h12_txrq.asc", [0.1002]),
        ("trc-versions/t2_v12.trc", [7200.0026, 7200.0032]),
        ("trc-versions/v10_ok.trc", [7201.841, 7201.844, 7201.850]),
        ("trc-versions/v10_error.trc", [7201.841, 7201.842, 7201.844, 7201.850]),
    ],
)
def test_every_frame_has_its_time(name, seconds):
    shared_data.require()
    frames, _ = read(FAULTS / name)
    assert [frame.t_us - NOON_US for frame in frames] == [round(second * 1e6) for second in seconds]
    assert all(frame.data.startswith("1027") for frame in frames if frame.can_id == 0x123)


@pytest.mark.parametrize(
    ("name", "frames", "note"),
    [
        ("asc-date-pm-24h/h9_pm24.asc", 1, ""),
        ("candump-error-frame-bus/c10_err.log", 4, ""),
        ("candump-lines-refused/c18_bom.log", 1, ""),
        ("candump-lines-refused/c1_dropcount.log", 2, "5"),
        ("candump-lines-refused/c2_len8dlc.log", 4, ""),
        ("candump-lines-refused/c4_console.log", 2, ""),
        ("unclear-messages/t10_bom.trc", 5, ""),
    ],
)
def test_every_frame_is_read(name, frames, note):
    shared_data.require()
    found, notes = read(FAULTS / name)
    assert len(found) == frames
    assert [text.rsplit(" ", 1)[1] for text in notes] == ([note] if note else [])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("candump-lines-refused/c5_console_nots.log", "line 1: this is candump's console output without times; record"),
        ("candump-odd-digits/odd.log", "line 2: the data 10270100000000A has an odd number of hex digits"),
        ("unclear-messages/busmaster.log", "the file is a BUSMASTER log"),
        ("unclear-messages/c19_utf16.log", "the file is UTF-16 text"),
        ("unclear-messages/savvy.csv", "the file is a CSV file of SavvyCAN (GVRET)"),
    ],
)
def test_what_cannot_be_read_is_named(name, complaint):
    shared_data.require()
    with pytest.raises(Permanent, match=re.escape(f"{FAULTS / name}: {complaint}")):
        read(FAULTS / name)


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Europe/Berlin", 1)])
def test_one_wall_clock_is_one_time_in_all_formats(zone, hours):
    shared_data.require()
    starts = {"h13_fd.asc": 0.1, "t1_v11.trc": 7200.0026}
    for name, second in starts.items():
        frames, _ = read(FAULTS / "log-time-zones" / name, zone)
        assert frames[0].t_us - NOON_US == round(second * 1e6) - hours * 3_600_000_000, name
