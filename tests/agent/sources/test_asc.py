"""ASC logs: every frame is read at its time, whatever the header looks like, and no line is skipped in silence."""

import re

import pytest

from agent.errors import Permanent
from agent.sources.logs import Truncated
from tests.agent.sources.written_log import Logged, read, read_text

US = 1_614_762_000_000_000  # 3 March 2021, 09:00:00 UTC
DATE = "date Wed Mar 3 09:00:00.000 2021"
HEADER = [DATE, "base hex  timestamps absolute", "no internal events logged"]
FRAME = "0.250000 2  3E8             Rx   d 3 0A 0B 0C"


def log(tmp_path, *lines, zone="UTC", end="\n"):
    return read_text(tmp_path, "drive.asc", "\n".join(lines) + end, zone)


def times(tmp_path, *lines):
    return [frame.t_us - US for frame in log(tmp_path, *lines)[0]]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("1  3E8             Rx   d 3 0A 0B 0C", ("can0", 0x3E8, "0a0b0c", "")),
        ("1 3E8 Tx d 3 0A 0B 0C  Length = 244016 BitCount = 125 ID = 1000", ("can0", 0x3E8, "0a0b0c", "")),
        ("12  1ABCDEFx  Rx d 0", ("can11", 0x1ABCDEF, "", "x")),
        ("1  3E8  Rx   d D 01 02 03 04 05 06 07 08", ("can0", 0x3E8, "0102030405060708", "")),
        ("1  3E8  Rx   r", ("can0", 0x3E8, "", "r")),
        ("1  18FEF121x  Tx   r 8 Length = 1704000 BitCount = 145 ID = 1x", ("can0", 0x18FEF121, "", "xr")),
        ("2  ErrorFrame", ("can1", 0, "", "xe")),
        ("2  ErrorFrame Flags = 0xe CodeExt = 0x20a2 Code = 0x82 ID = 0 DLC = 0", ("can1", 0, "", "xe")),
        ("CANFD   3 Rx  3E8  Engine_1  1 0 a 16 " + "5A " * 16 + " 104812  132 323000 0 1 2",
         ("can2", 0x3E8, "5a" * 16, "fb")),
        ("CANFD   3 Tx  3E8x           0 1 3 3 01 02 03  104812  132   305000 0", ("can2", 0x3E8, "010203", "xfs")),
        ("CANFD   3 Rx  3E8  Engine_1  1 0 8 8 01 02 03 04 05 06 07 08", ("can2", 0x3E8, "0102030405060708", "fb")),
        ("CANFD   3 Rx  3E8            0 0 2 2 01 02  104812  132   200040 0", ("can2", 0x3E8, "0102", "")),
        ("CANFD   3 Rx  3E8            0 0 5 0  140000 73 200050 7a60", ("can2", 0x3E8, "", "r")),
        ("CANFD   3 Rx  3E8            1 0 0 0  140000 73 203040 7a60", ("can2", 0x3E8, "", "fb")),
        ("CANFD   3 Rx   ErrorFrame   Not Acknowledge error, dominant error flag  fffe c7 31ca", ("can2", 0, "", "xe")),
        ("CANXL   2 Rx   CBFF  243215 176 3E8 Name 2 2 e1 89 174 00000000 0", ("can1", 0x3E8, "e189", "")),
        ("CANXL   2 Rx   CEFF  243215 176 18FEF121 f 8 e1 89 e8 c2 b9 6d 5a f1 174 00000000 0",
         ("can1", 0x18FEF121, "e189e8c2b96d5af1", "x")),
        ("CANXL   2 Tx   FBFF  243215 176 3E8 Name 9 12 " + "11 " * 12 + "a 12345 00003240 0",
         ("can1", 0x3E8, "11" * 12, "fb")),
        ("CANXL   2 Rx   CBFF  243215 176 3E8 3 0 174 00000010 0", ("can1", 0x3E8, "", "r")),
    ],
)  # fmt: skip
def test_every_form_of_a_frame_is_read(tmp_path, event, expected):
    frames, notes = log(tmp_path, *HEADER, "0.250000 " + event)
    assert frames == [Logged(US + 250_000, *expected)]
    assert notes == []


@pytest.mark.parametrize(
    "header",
    [
        ["", *HEADER],
        ["\ufeff" + DATE, *HEADER[1:]],
        ["// made by a tool", *HEADER],
        [HEADER[1], DATE, HEADER[2]],
        [DATE, "base hex  timestamps absolute no internal events logged"],
        [DATE, "base hex  no internal events logged"],
        [DATE, "base hex", "timestamps absolute"],
        [DATE, HEADER[1]],
        [DATE, HEADER[1], "internal events logged", "// version 13.0.0", "   0.000000 Start of measurement"],
        [DATE, HEADER[1], f"Begin Triggerblock {DATE[5:]}"],
        [HEADER[1], f"Begin TriggerBlock {DATE[5:]}"],
        ["Date Wed Mar 3 09:00:00 AM 2021", "BASE HEX TIMESTAMPS ABSOLUTE"],
        ["date Mi. Mär 3 09:00:00.000 2021", HEADER[1]],
        ["date mer. mars 3 09:00:00.000 2021", HEADER[1]],
        ["date 2021-03-03 09:00:00.000", HEADER[1]],
    ],
)
def test_headers_of_all_tools_give_the_same_frames(tmp_path, header):
    frames, _ = log(tmp_path, *header, FRAME, FRAME.replace("0.25", "0.35"))
    assert [frame.t_us - US for frame in frames] == [250_000, 350_000]
    assert frames[0][1:] == ("can1", 0x3E8, "0a0b0c", "")


def test_german_months_in_the_ansi_code_page_are_read(tmp_path):
    path = tmp_path / "drive.asc"
    path.write_bytes(
        "date Mit Mär 3 09:00:00.000 2021\nbase hex  timestamps absolute\n".encode("cp1252") + FRAME.encode() + b"\n"
    )
    assert read(path)[0][0].t_us - US == 250_000


@pytest.mark.parametrize("first", [[], [""], ["\ufeff// a comment"]])
def test_decimal_logs_are_read_as_decimal_wherever_the_header_stands(tmp_path, first):
    frames, _ = log(tmp_path, *first, DATE, "base dec  timestamps absolute", "0.1 1  1000  Rx d 4 255 16 9 0",
                    "0.2 1 4660x Rx d 1 7",
                    "0.3 CANFD 1 Rx 1000 0 0 9 12 1 2 3 4 5 6 7 8 9 10 11 12 104812 132 301000")  # fmt: skip
    assert [frame[2:] for frame in frames] == [
        (1000, "ff100900", ""),
        (4660, "07", "x"),
        (1000, "0102030405060708090a0b0c", "f"),
    ]


def test_relative_times_count_from_the_event_before_of_whatever_kind(tmp_path):
    lines = [
        DATE, "base hex  timestamps relative", "   0.100000 Start of measurement",
        "0.200000 1  3E8  Rx d 1 01", "0.300000 1  Statistic: D 2 R 0 XD 0 XR 0 E 0 O 0 B 0.04%",
        "0.050000 1  3E8  TxRq d 1 01", "0.000150 1  3E8  Tx d 1 01", "1.000000 CANFD 1 Rx 3E8 0 0 1 1 01",
    ]  # fmt: skip
    assert times(tmp_path, *lines) == [300_000, 650_150, 1_650_150]


def test_a_relative_log_goes_on_at_the_date_of_its_next_trigger_block(tmp_path):
    lines = [
        DATE, "base hex  timestamps relative", "Begin Triggerblock Wed Mar 3 09:00:05.000 2021",
        "0.100000 1 3E8 Rx d 1 01", "0.100000 1 3E8 Rx d 1 01", "End TriggerBlock",
        "Begin Triggerblock Wed Mar 3 09:01:00.000 2021", "0.500000 1 3E8 Rx d 1 01", "End TriggerBlock",
    ]  # fmt: skip
    assert times(tmp_path, *lines) == [5_100_000, 5_200_000, 60_500_000]


def test_absolute_times_count_from_the_measurement_in_every_trigger_block(tmp_path):
    lines = [
        *HEADER, "Begin Triggerblock Wed Mar 3 09:00:07.000 2021", "7.250000 1 3E8 Rx d 1 01", "End TriggerBlock",
        "Begin Triggerblock Wed Mar 3 09:02:00.000 2021", "120.125000 1 3E8 Rx d 1 01", "End TriggerBlock",
    ]  # fmt: skip
    assert times(tmp_path, *lines) == [7_250_000, 120_125_000]


def test_times_that_begin_again_in_a_block_count_from_that_block(tmp_path):
    frames, notes = log(
        tmp_path, *HEADER, "Begin Triggerblock Wed Mar 3 09:00:00.000 2021", "7.250000 1 3E8 Rx d 1 01",
        "End TriggerBlock", "Begin Triggerblock Wed Mar 3 09:02:00.000 2021", "0.125000 1 3E8 Rx d 1 01",
        "0.250000 1 3E8 Rx d 1 01", "End TriggerBlock",
    )  # fmt: skip
    assert [frame.t_us - US for frame in frames] == [7_250_000, 120_125_000, 120_250_000]
    assert [note[:54] for note in notes] == ["times count from the date of their trigger block; coun"]


@pytest.mark.parametrize(
    ("block", "start"),
    [
        ("Fri Nov 27 22:13:20.5 2015", 1_448_662_400_500_000),  # exported years later
        ("Wed Mar 3 09:00:03.250 2021", US + 3_250_000),  # logged live, after a wait for the first frame
    ],
)
def test_the_logs_of_python_can_count_from_their_trigger_block(tmp_path, block, start):
    lines = ["0.000000 Start of measurement", "0.000000 1 3E8 Rx d 1 01", "2.500000 1 3E8 Rx d 1 01"]
    frames, notes = log(tmp_path, *HEADER, f"Begin Triggerblock {block}", *lines, "End TriggerBlock")
    assert [frame.t_us for frame in frames] == [start, start + 2_500_000]
    assert len(notes) == 1


def test_frames_shortly_before_their_trigger_block_count_from_the_measurement(tmp_path):
    lines = ["Begin Triggerblock Wed Mar 3 09:00:30.000 2021", "29.500000 1 3E8 Rx d 1 01", "30.5 1 3E8 Rx d 1 01"]
    assert times(tmp_path, *HEADER, *lines) == [29_500_000, 30_500_000]


def test_logs_one_behind_the_other_are_read_with_their_own_headers(tmp_path):
    second = [
        "date Wed Mar 3 10:00:00.000 2021",
        "base dec  timestamps relative",
        "0.1 1 1000 Rx d 1 10",
        "0.1 1 1000 Rx d 1 11",
    ]
    frames, _ = log(tmp_path, *HEADER, FRAME, *second)
    assert [(frame.t_us - US, frame.data) for frame in frames] == [
        (250_000, "0a0b0c"), (3_600_100_000, "0a"), (3_600_200_000, "0b"),
    ]  # fmt: skip


def test_frames_from_before_the_trigger_are_read(tmp_path):
    lines = [
        *HEADER,
        f"Begin Triggerblock {DATE[5:]}",
        *(f"{t} 1 3E8 Rx d 1 01" for t in ("-0.300000", "-0.050000", "0.1")),
    ]
    assert times(tmp_path, *lines) == [-300_000, -50_000, 100_000]


def test_a_decimal_comma_is_read_and_noted(tmp_path):
    frames, notes = log(tmp_path, *HEADER, "0,250000 1 3E8 Rx d 1 01", "0,350000 1 3E8 Rx d 1 01")
    assert [frame.t_us - US for frame in frames] == [250_000, 350_000]
    assert notes == ["times have a decimal comma, which is read as a decimal point"]


@pytest.mark.parametrize(
    "request_line", ["1  3E8  TxRq   d 1 01", "CANFD 1 TxRq 3E8 0 0 1 1 01", "CANXL 1 TxRq CBFF 1 1 3E8 1 1 01 0 0 0"]
)
def test_a_transmit_request_is_no_frame_and_is_counted(tmp_path, request_line):
    frames, notes = log(tmp_path, *HEADER, f"0.1 {request_line}", "0.2 1  3E8  Tx   d 1 01")
    assert [frame.t_us - US for frame in frames] == [200_000]
    assert notes == ["transmit requests (TxRq), which are not frames of the bus, not read: 1"]


def test_other_events_are_no_frames(tmp_path):
    known = [
        "0.000000 Start of measurement", "0.1 CAN 1 Status:chip status error passive - TxErr: 132 RxErr: 0",
        "0.1 1  Statistic: D 0 R 0 XD 0 XR 0 E 0 O 0 B 0.00%", "0.1 // a comment", "// another",
        "0.1 log trigger event",
        "0.1 2  J1939TP FEE3p   6  0  0   -   Rx   d 23 A0 0F A6 60 3B D1 40 1F DE 80 25 DF C0 2B E1 00 4B FF FF 3C 0F",
    ]  # fmt: skip
    assert log(tmp_path, *HEADER, *known, FRAME)[1] == []
    others = ["0.1 Li 30 Rx 8 01 02 03 04 05 06 07 08", "0.1 SV: 2 0 1 ::Body::Light = 1", "0.1 1  OTP(1)  0 Atm"]
    frames, notes = log(tmp_path, *HEADER, *others, FRAME)
    assert len(frames) == 1
    assert notes == ["events of other kinds (other networks, variables, diagnostics), not read: 3"]


def test_frames_of_can_xl_are_counted_as_not_read(tmp_path):
    frames, notes = log(
        tmp_path, *HEADER, "0.1 CANXL 2 Rx XLFF 984438 4656 432 Name e0 0 1fe 511 1 1f96 00 0 e1", FRAME
    )
    assert len(frames) == 1
    assert notes == ["CAN XL frames, not read: 1"]


@pytest.mark.parametrize(
    "line",
    [
        "0.1 1 3E8 Rx d 3 0A 0B", "0.1 1 3E8 Rx d 3 0A 0B Length = 24", "0.1 1 3E8 Rx d 2 0A 0", "0.1 1 3E8 Rx d 1 0BC",
        "0.1 1 3E8 Rx d", "0.1 1 3E8 Rx", "0.1 1 3E8", "0.1 1", "0.1", "0.1 1 3E8 Rx d G 01",
        "0.1 1 Engine_1 Rx d 1 01",
        "0.1 1 3E8 Rx q 1 01", "0.1 1 3E8 Up d 1 01", "0.1 0 3E8 Rx d 1 01", "0.1 one 3E8 Rx d 1 01",
        "0.1 1 20000000x Rx d 1 01", "0.1.2 1 3E8 Rx d 1 01", "3E8 Rx d 1 01", "garbage", "\0\0\0\0",
        "0.1 CANFD 1 Rx 3E8 0 0 9 12 01 02", "0.1 CANFD 1 Rx", "0.1 CANFD x Rx 3E8 0 0 1 1 01",
        "0.1 CANFD 1 Rx 3E8 Name 2 0 1 1 01", "0.1 CANFD 1 Rx 3E8 0 0 1 x 01",
        "0.1 CANFD 1 Rx 3E8 0 0 1 1 01 1 1 zz",
        "0.1 CANFD 1 Rx 3E8 0 0 f 65 01", "0.1 CANXL 1 Rx ABCD 1 1 3E8 1 1 01 0 0 0",
        "base oct  timestamps absolute", "base hex  timestamps other", "date yesterday", "Begin Triggerblock soon",
        "date Wed Foo 3 09:00:00.000 2021",
    ],
)  # fmt: skip
def test_what_is_neither_a_frame_nor_an_event_is_an_error_with_its_line(tmp_path, line):
    with pytest.raises(Permanent, match=r"drive\.asc: line 5: "):
        log(tmp_path, *HEADER, FRAME, line, FRAME)


@pytest.mark.parametrize(
    "line",
    ["0.1 1 1000 Rx d 2 1 256", "0.1 1 1000 Rx d 2 1 0A", "0.1 CANFD 1 Rx 1000 0 0 2 2 07 08", "0.1 1 3E8 Rx d 1 1"],
)
def test_what_is_no_decimal_number_in_a_decimal_log_is_an_error(tmp_path, line):
    with pytest.raises(Permanent, match=r"line 3: .*base dec"):
        log(tmp_path, DATE, "base dec  timestamps absolute", line)


def test_a_wide_identifier_without_its_mark_is_read_and_noted(tmp_path):
    frames, notes = log(tmp_path, *HEADER, "0.1 1 18FEF121 Rx d 1 01")
    assert frames[0][2:] == (0x18FEF121, "01", "x")
    assert notes == ["identifiers above 7FF have no mark x; they are read as identifiers of 29 bits"]


def test_what_a_log_lacks_is_noted(tmp_path):
    frames, notes = log(tmp_path, "0.5 1 3E8 Rx d 1 01")
    assert frames[0].t_us == 500_000
    assert notes == [
        "the log has no date, so its times count from 1970",
        "the log has no line 'base', so its numbers are read as hexadecimal",
    ]
    _, notes = log(tmp_path, *HEADER, "", "Begin Triggerblock", FRAME)
    assert notes == [
        "the trigger block that begins in line 5 has no end, so frames may be missing at the end of the log"
    ]


@pytest.mark.parametrize("cut", range(1, len(FRAME)))
def test_a_log_that_was_cut_anywhere_in_its_last_line_is_told(tmp_path, cut):
    try:
        frames, notes = log(tmp_path, *HEADER, FRAME, FRAME[:cut], end="")
    except Truncated as error:
        assert re.match(
            r".*drive\.asc: line 5: truncated or damaged \.asc data: the log ends within a line: ", str(error)
        )
    else:
        assert any("has no line end" in note for note in notes)
        assert len(frames) == 1
