"""Dates without a time zone are local time, by one rule for all formats, and a date in any notation has one meaning."""

import re
import time
from datetime import UTC, datetime

import can
import pytest

from agent.errors import Permanent
from agent.sources.log_lines import Notes, Unreadable
from agent.sources.log_times import WallClock, wall_time
from tests.agent.sources.written_log import read

NOON = datetime(2026, 7, 1, 12)
NOON_UTC_NS = int(datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()) * 10**9
HOUR_NS = 3600 * 10**9


@pytest.fixture
def machine_in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("UTC", 0), ("Z", 0), ("Europe/Berlin", -2), ("+02:00", -2), ("-0530", 5.5), ("America/New_York", 4), ("", -2)],
)
@pytest.mark.usefixtures("machine_in_berlin")
def test_a_zone_is_a_name_or_an_offset_and_by_default_that_of_the_machine(zone, hours):
    assert WallClock(zone).unix_ns(NOON) == NOON_UTC_NS + hours * HOUR_NS


@pytest.mark.parametrize("zone", ["Mars/Olympus", "+25:00", "Europe", "../etc/passwd", "2 o'clock", "\0"])
def test_an_unknown_zone_is_named_with_the_remedy(zone):
    with pytest.raises(Permanent, match=re.escape(repr(zone)) + " is unknown; give a name such as Europe/Berlin"):
        WallClock(zone)


def test_an_hour_that_comes_twice_is_noted():
    notes = Notes()
    assert WallClock("Europe/Berlin").unix_ns(datetime(2026, 10, 25, 2, 30), notes) % (24 * HOUR_NS) == HOUR_NS // 2
    assert len(notes.texts) == 1
    assert "2026-10-25 02:30:00 is not unique" in notes.texts[0]
    WallClock("+01:00").unix_ns(datetime(2026, 10, 25, 2, 30), notes)
    assert len(notes.texts) == 1


@pytest.mark.usefixtures("machine_in_berlin")
@pytest.mark.parametrize("zone", ["", "UTC"])
def test_one_drive_has_the_same_times_in_all_formats(tmp_path, zone):
    (tmp_path / "a.asc").write_text(
        "date Wed Jul 1 12:00:00.000 2026\nbase hex  timestamps absolute\n0.5 1 1 Rx d 1 01\n"
    )
    (tmp_path / "b.trc").write_text(";$FILEVERSION=1.1\n;$STARTTIME=46204.5\n1) 500.0 Rx 0001 1 01\n")
    (tmp_path / "c.trc").write_text(";   Start time: 01.07.2026 12:00:00.000\n1) 500 0001 1 01\n")
    (tmp_path / "d.log").write_text(" (2026-07-01 12:00:00.500000)  can0  001   [1]  01\n")
    with can.Logger(tmp_path / "e.blf") as logger:  # python-can writes the start in UTC, as if it were local time
        for half_seconds in (0, 1):
            t = NOON_UTC_NS / 1e9 + half_seconds / 2
            logger.on_message_received(can.Message(timestamp=t, arbitration_id=half_seconds, data=b"\1"))
    expected_us = (NOON_UTC_NS - (0 if zone else 2 * HOUR_NS)) // 1000 + 500_000
    for name in ("a.asc", "b.trc", "c.trc", "d.log", "e.blf"):
        frames, _ = read(tmp_path / name, zone)
        assert [frame.t_us for frame in frames if frame.can_id == 1] == [expected_us], name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tue Mar 3 07:08:09.250 2026", (3, 3, 7, 8, 9, 250_000)),
        ("Tue Mar 03 07:08:09 AM 2026", (3, 3, 7, 8, 9)),
        ("Tue Mar 3 07:08:09.5 pm 2026", (3, 3, 19, 8, 9, 500_000)),
        ("Tue Mar 3 12:08:09 am 2026", (3, 3, 0, 8, 9)),
        ("Tue Mar 3 12:08:09 p.m. 2026", (3, 3, 12, 8, 9)),
        ("Tue Mar 3 17:08:09 pm 2026", (3, 3, 17, 8, 9)),
        ("Tue Mar 3 17:08:09 am 2026", (3, 3, 17, 8, 9)),
        ("Di. Mär. 3 07:08:09 2026", (3, 3, 7, 8, 9)),
        ("Die Mrz 3 07:08:09 2026", (3, 3, 7, 8, 9)),
        ("Dienstag, 3. März 2026 07:08:09", (3, 3, 7, 8, 9)),
        ("Sa Okt 3 07:08:09 2026", (10, 3, 7, 8, 9)),
        ("Do Dez 3 07:08:09 2026", (12, 3, 7, 8, 9)),
        ("Fr Mai 1 07:08:09 2026", (5, 1, 7, 8, 9)),
        ("mar. mars 3 07:08:09 2026", (3, 3, 7, 8, 9)),
        ("mar. févr. 3 07:08:09 2026", (2, 3, 7, 8, 9)),
        ("mer. juin 3 07:08:09 2026", (6, 3, 7, 8, 9)),
        ("ven. juil. 3 07:08:09 2026", (7, 3, 7, 8, 9)),
        ("lun. août 3 07:08:09 2026", (8, 3, 7, 8, 9)),
        ("mar gen 6 07:08:09 2026", (1, 6, 7, 8, 9)),
        ("sab ott 3 07:08:09 2026", (10, 3, 7, 8, 9)),
        ("mar. ene. 6 07:08:09 2026", (1, 6, 7, 8, 9)),
        ("周二 3月 3 07:08:09 下午 2026", (3, 3, 19, 8, 9)),
        ("화 3월 3 07:08:09 오후 2026", (3, 3, 19, 8, 9)),
        ("03.04.2026 07:08:09.123.4", (4, 3, 7, 8, 9, 123_000)),
        ("2026-04-03 07:08:09.123456", (4, 3, 7, 8, 9, 123_456)),
        ("4/13/2026 7:08:09 PM", (4, 13, 19, 8, 9)),
        ("13/4/2026 07:08:09", (4, 13, 7, 8, 9)),
    ],
)
def test_dates_of_all_tools_and_languages_are_read(text, expected):
    assert wall_time(text) == datetime(2026, *expected)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Wed Foo 3 07:08:09 2026", "'foo' in the date"),
        ("3/4/2026 07:08:09", "may be the day or the month first; write the date as 2026-MM-DD"),
        ("Wed Mar 3 00:08:09 pm 2026", "may be noon or midnight"),
        ("Wed Feb 30 07:08:09 2026", "is not a date: day is out of range"),
        ("Wed Mar 3 27:08:09 2026", "is not a date"),
        ("Wed Mar 3 2026", "is not a date; write it as"),
        ("07:08:09", "is not a date; write it as"),
        ("", "is not a date; write it as"),
    ],
)
def test_what_is_no_date_or_two_dates_is_an_error(text, complaint):
    with pytest.raises(Unreadable, match=complaint):
        wall_time(text)
