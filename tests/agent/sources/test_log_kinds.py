"""A file that is something else than its name says is called by what it is, with the remedy."""

import re

import pytest

from agent.errors import Permanent
from tests.agent.sources.written_log import read

ROW = "1700000000.5,0x123,0,0,0,2,q80=\n"
HEADER = "timestamp,arbitration_id,extended,remote,error,dlc,data\n"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("drive.log", "***BUSMASTER Ver 3.2.2***\n***PROTOCOL CAN***\n", "a BUSMASTER log, not a .log log; export"),
        ("drive.asc", "***BUSMASTER Ver 2.6.0***\n", "a BUSMASTER log, not a .asc log; export it as ASC"),
        ("drive.csv", "Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8\n", "a CSV file of SavvyCAN (GVRET)"),
        ("drive.csv", "TimestampEpoch;BusChannel;ID;IDE;DLC;DataLength;Dir;EDL;BRS;DataBytes\n", "CSS Electronics"),
        ("drive.log", "date Wed Nov 25 10:00:00.000 2026\n", "an ASC log, not a .log log; name it by .asc"),
        ("drive.trc", "base hex  timestamps absolute\n", "an ASC log, not a .trc log; name it by .asc"),
        ("drive.log", ";$FILEVERSION=2.1\n", "a TRC log, not a .log log; name it by .trc"),
        ("drive.asc", "(1700000000.000001) can0 123#0011\n", "a candump log, not a .asc log; name it by .log"),
        ("drive.asc", HEADER, "a CSV file of python-can, not a .asc log; name it by .csv"),
        ("drive.log", b"LOGG\x90\0\0\0", "a BLF log, not a .log log; name it by .blf"),
        ("drive.asc", b"MDF     4.10    ", "an MF4 log, not a .asc log; name it by .mf4"),
        ("drive.log", b"\x1f\x8b\x08\0", "compressed by gzip, not a .log log; name it by .gz"),
        ("drive.log", b"\x28\xb5\x2f\xfd\x04", "compressed by zstd"),
        ("drive.log", b"\xd4\xc3\xb2\xa1\2\0", "a PCAP capture"),
        ("drive.csv", b"PK\x03\x04\x14\0", "a ZIP archive or a workbook of Excel"),
        ("drive.log", "(1.0) can0 123#00\n".encode("utf-16"), "UTF-16 text, as PowerShell writes it with >; convert"),
        ("drive.asc", "date Wed Nov 25".encode("utf-16-le"), "UTF-16 text"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_named(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Permanent, match=f"{re.escape(str(path))}: the file is .*{re.escape(complaint)}"):
        read(path)


@pytest.mark.parametrize("header", [HEADER, ""])
def test_csv_of_python_can_is_read_and_a_missing_header_costs_no_frame(tmp_path, header):
    path = tmp_path / "drive.csv"
    path.write_text(header + ROW + "1.7e9,0x18fef121,1,0,0,0,\n1700000001.0,0x7,0,1,0,4,\n1700000002.0,0x0,1,0,1,0,\n")
    frames, notes = read(path)
    assert [(frame.can_id, frame.data, frame.flags) for frame in frames] == [
        (0x123, "abcd", ""),
        (0x18FEF121, "", "x"),
        (7, "", "r"),
        (0, "", "xe"),
    ]
    assert notes == ([] if header else ["the log has no line of headings, so its first line is read as a frame"])


@pytest.mark.parametrize(
    "row",
    ["1.0,0x123,0,0,0,3,q80=", "1.0,0x123,0,0,0,2,q8", "1.0,0x800,0,0,0,0,", "nan,0x1,0,0,0,0,", "1.0,0x1,0,0,0,0",
     "1.0,0x20000000,1,0,0,0,", "1.0,0x1,2,0,0,0,", "1.0,0x1,0,0,0,65," + "A" * 88, "x", "1.0;0x1;0;0;0;0;"],
)  # fmt: skip
def test_a_row_that_is_no_frame_is_an_error_with_its_line(tmp_path, row):
    path = tmp_path / "drive.csv"
    path.write_text(HEADER + ROW + row + "\n" + ROW)
    with pytest.raises(Permanent, match=r"drive\.csv: line 3: "):
        read(path)
