"""candump's logs and its console output are read as can-utils defines them, and every other line is an error."""

import re

import pytest

from agent.errors import Permanent
from agent.sources.logs import Truncated
from agent.sources.replay import read_blocks
from tests.agent.sources.written_log import Logged, read, read_text

T = 1_650_000_000
US = T * 1_000_000


def log(tmp_path, *lines, end="\n"):
    return read_text(tmp_path, "drive.log", "\n".join(lines) + end)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("2A1#", Logged(US, "can3", 0x2A1, "")),
        ("2A1#5566", Logged(US, "can3", 0x2A1, "5566")),
        ("2a1#ab.cd.ef", Logged(US, "can3", 0x2A1, "abcdef")),
        ("000002A1#77", Logged(US, "can3", 0x2A1, "77", "x")),
        ("98FEF121#77", Logged(US, "can3", 0x18FEF121, "77", "x")),  # with CAN_EFF_FLAG
        ("18FEF121#0102030405060708 T", Logged(US, "can3", 0x18FEF121, "0102030405060708", "x")),
        ("2A1#0102030405060708_C R", Logged(US, "can3", 0x2A1, "0102030405060708")),
        ("2A1#R", Logged(US, "can3", 0x2A1, "", "r")),
        ("2A1#r4", Logged(US, "can3", 0x2A1, "", "r")),
        ("18FEF121#R8_A", Logged(US, "can3", 0x18FEF121, "", "xr")),
        ("2A1##0" + "5A" * 12, Logged(US, "can3", 0x2A1, "5a" * 12, "f")),
        ("2A1##1" + "5A" * 64, Logged(US, "can3", 0x2A1, "5a" * 64, "fb")),
        ("2A1##2", Logged(US, "can3", 0x2A1, "", "fs")),
        ("2A1##F11", Logged(US, "can3", 0x2A1, "11", "fbs")),
        ("20000001#0000000000000000", Logged(US, "can3", 1, "00" * 8, "xe")),
        ("20000200#0000000000007F60", Logged(US, "can3", 0x200, "0000000000007f60", "xe")),
    ],
)
def test_every_notation_of_a_frame_is_read(tmp_path, frame, expected):
    frames, notes = log(tmp_path, f"({T}.000000) can3 {frame}")
    assert frames == [expected]
    assert notes == []


def test_error_frames_are_of_the_bus_that_had_them(tmp_path):
    frames, _ = log(
        tmp_path,
        f"({T}.000000)  vcan7 20000040#0000000000000000",
        f"({T}.000001) slcan0 20000004#0010000000000000",
        f"({T}.000002)  vcan7 7DF#02010D",
    )
    assert [(frame.bus, frame.can_id, "e" in frame.flags) for frame in frames] == [
        ("vcan7", 0x40, True),
        ("slcan0", 0x04, True),
        ("vcan7", 0x7DF, False),
    ]


@pytest.mark.parametrize(
    "frame",
    ["2A1#556", "2A1#5", "18FEF121#010203040506070", "2A1##0556", "2A1#5G", "2A1", "2A1#55 X", "FFF#55", "58FEF121#",
     "-1#00", "2A1#010203040506070809", "2A1##0" + "00" * 65, "2A1#R8_1", "0012A1#:", "#55", "2A1 # 55"],
)  # fmt: skip
def test_a_line_that_is_no_frame_is_an_error_with_its_number(tmp_path, frame):
    sound = f"({T}.000000) can3 2A1#55"
    with pytest.raises(Permanent, match=r"drive\.log: line 2: .*(cut the log before the damage|record with)"):
        log(tmp_path, sound, f"({T}.000001) can3 {frame}", sound)


@pytest.mark.parametrize(
    "line", ["(nan) can3 2A1#55", "(-1.0) can3 2A1#55", f"{T}.0 can3 2A1#55", "# a comment", "\0" * 40]
)
def test_a_line_that_does_not_begin_as_a_frame_is_an_error(tmp_path, line):
    with pytest.raises(Permanent, match=r"drive\.log: line 2: "):
        log(tmp_path, f"({T}.000000) can3 2A1#55", line)


def test_frames_that_candump_lost_are_told(tmp_path):
    frames, notes = log(
        tmp_path,
        f"({T}.000000) can3 2A1#55",
        "DROPCOUNT: dropped 12 CAN frames on 'can3' socket (total drops 12)",
        "DROPCOUNT: dropped 1 CAN frame on 'can3' socket (total drops 13)",
        "DROPCOUNT: dropped 2 CAN frames on 'any' socket (total drops 2)",
        f"({T}.000001) can3 2A1#56",
    )
    assert len(frames) == 2
    assert notes == [
        "frames of can3 that candump lost while recording (DROPCOUNT), not read: 13",
        "frames of any that candump lost while recording (DROPCOUNT), not read: 2",
    ]


def test_frames_of_can_xl_are_counted_as_not_read(tmp_path):
    frames, notes = log(
        tmp_path,
        f"({T}.000000) can3 2A1#81:00:12345678#11223344.556677",
        f"({T}.000001) can3 452A1#80:03:00000001#{'00' * 100} T",
        f"({T}.000002) can3 2A1#55",
    )
    assert len(frames) == 1
    assert notes == ["CAN XL frames, not read: 2"]


CONSOLE = [
    "  can3  2A1   [3]  55 66 77",
    "  can3  18FEF121   [0] ",
    "  can3       2A1   [2]  55 66             'Uf'",
    "  can3  2A1   [4]  remote request",
    "  can3  2A1  [12]  01 02 03 04 05 06 07 08 09 0A 0B 0C",
    "  can3  20000004   [8]  00 04 00 00 00 00 00 00   ERRORFRAME",
    "\tcontroller-problem{rx-error-warning}",
    "  can3  RX B E  2A1  [08]  01 02 03 04 05 06 07 08",
    "  can3  TX - -  2A1   {9}  01 02 03 04 05 06 07 08",
    "  can3  2A1   [0100]  " + "00 " * 100,
]
SHOWN = [
    ("can3", 0x2A1, "556677", ""),
    ("can3", 0x18FEF121, "", "x"),
    ("can3", 0x2A1, "5566", ""),
    ("can3", 0x2A1, "", "r"),
    ("can3", 0x2A1, "0102030405060708090a0b0c", "f"),
    ("can3", 4, "0004000000000000", "xe"),
    ("can3", 0x2A1, "0102030405060708", "fbs"),
    ("can3", 0x2A1, "0102030405060708", ""),
]


@pytest.mark.parametrize("stamp", [f" ({T}.250000)", f"\x1b[31m ({T}.250000)", " (2022-04-15 05:20:00.250000)"])
def test_the_console_with_times_is_read(tmp_path, stamp):
    frames, notes = log(tmp_path, *(line if line[0] == "\t" else stamp + line for line in CONSOLE))
    assert [frame[1:] for frame in frames] == SHOWN
    assert {frame.t_us for frame in frames} == {US + 250_000}
    assert notes == ["CAN XL frames, not read: 1"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (CONSOLE[0], "candump's console output without times; record with candump -L or -l"),
        (
            " (000.000000)" + CONSOLE[0],
            "(000.000000) of candump's console output (-td or -tz) does not say when the frame came; record",
        ),
        (" (1200.000000)" + CONSOLE[0], "(-td or -tz) does not say when the frame came; record with candump -L"),
        (f" ({T}.0)  can3  2A1   [2]  00000001 00000010", "candump -i or -S; record with candump -L"),
        (f" ({T}.0)  can3  2A1   [3]  55`66`77", "candump -i or -S; record with candump -L"),
        (f" ({T}.0)  can3  2A1   [3]  55 66", "too few data bytes: the frame has 3, the line 2"),
        (f" ({T}.0)  can3  2A1   [2]  55 66 77", "is not a line of candump"),
    ],
)
def test_a_console_that_cannot_be_read_is_named_with_the_remedy(tmp_path, line, complaint):
    with pytest.raises(Permanent, match=r"drive\.log: line 1: .*" + re.escape(complaint)):
        log(tmp_path, line)


def test_a_byte_order_mark_and_line_ends_of_windows_change_nothing(tmp_path):
    path = tmp_path / "drive.log"
    path.write_bytes(f"\ufeff({T}.000000) can3 2A1#55\r\n\r\n({T}.000001) can3 2A1#56\r\n".encode())
    assert [frame.data for frame in read(path)[0]] == ["55", "56"]


def test_a_log_that_ends_within_a_line_is_truncated_and_its_whole_frames_come_first(tmp_path):
    path = tmp_path / "drive.log"
    path.write_text(f"({T}.000000) can3 2A1#55\n({T}.000001) can3 2A1#5")
    blocks = read_blocks(path)
    assert len(next(blocks)) == 1
    with pytest.raises(
        Truncated, match=r"drive\.log: line 2: truncated or damaged \.log data: the log ends within a line"
    ):
        next(blocks)


def test_a_last_line_without_its_end_is_noted(tmp_path):
    frames, notes = log(tmp_path, f"({T}.000000) can3 2A1#55", f"({T}.000001) can3 2A1#5566", end="")
    assert len(frames) == 2
    assert notes == ["line 2, the last, has no line end; if the log was cut there, its frame may be wrong"]
