"""Frames of MF4 logs are read whatever members their groups have, and an odd group costs no other group."""

import struct
from pathlib import Path

import can
import pytest

from agent.errors import Permanent
from agent.sources.logs import LogFile, Truncated
from agent.sources.mf4 import Mf4Messages
from tests import shared_data
from tests.agent.sources.written_mf4 import BYTES, START, UNSIGNED_BIG, Group, Member, write
from tests.fuzz.forked import Forked

CASES = shared_data.DATA.parent / "cases" / "faults"
HEAD = [Member("BusChannel"), Member("ID", 4), Member("IDE")]
WHOLE = [*HEAD, Member("DLC"), Member("DataLength"), Member("DataBytes", 8, BYTES)]
DATA = "CAN_DataFrame"


def record(n: int, identifier: int = 0x123, extended: int = 0) -> tuple[float, bytes]:
    """Return a record of the members WHOLE."""
    return n / 1000, struct.pack("<BIBBB8s", 1, identifier, extended, 8, 8, struct.pack("<Q", n))


def read(path: Path) -> tuple[list[can.Message], tuple[str, ...]]:
    with Mf4Messages(path, start=Forked) as messages:
        return list(messages), messages.notes


def only(path: Path) -> can.Message:
    ((message,), notes) = read(path)
    assert notes == ()
    return message


def test_all_members_come_back(tmp_path):
    path = write(tmp_path / "drive.mf4", Group(DATA, WHOLE, [record(n, 0x100 + n % 7) for n in range(9_000)]))
    frames, _ = read(path)
    assert [bytes(frame.data) for frame in frames] == [struct.pack("<Q", n) for n in range(9_000)]
    assert [frame.arbitration_id for frame in frames] == [0x100 + n % 7 for n in range(9_000)]
    assert not any(frame.is_extended_id or frame.is_fd or frame.is_error_frame for frame in frames)
    assert [round((frame.timestamp - START.timestamp()) * 1000) for frame in frames] == list(range(9_000))


def test_without_ide_bit_31_of_the_identifier_decides(tmp_path):
    members = [member for member in WHOLE if member.name != "IDE"]
    records = [
        (n / 10, struct.pack("<BIBB8s", 1, identifier, 8, 8, b""))
        for n, identifier in enumerate([0x123, 0x8000_0123, 0x9FFF_FFFF])
    ]
    frames, _ = read(write(tmp_path / "drive.mf4", Group(DATA, members, records)))
    assert [(frame.arbitration_id, frame.is_extended_id) for frame in frames] == [
        (0x123, False),
        (0x123, True),
        (0x1FFF_FFFF, True),
    ]


def test_an_identifier_that_needs_29_bits_has_them_whatever_ide_says(tmp_path):
    path = write(tmp_path / "drive.mf4", Group(DATA, WHOLE, [record(0, 0x800), record(1, 0x7FF), record(2, 5, 1)]))
    assert [frame.is_extended_id for frame in read(path)[0]] == [True, False, True]


@pytest.mark.parametrize("fd", [0, 1])
@pytest.mark.parametrize(("code", "length"), [(0, 0), (8, 8), (9, 12), (13, 32), (15, 64)])
def test_without_data_length_the_length_follows_from_the_code(tmp_path, fd, code, length):
    members = [*HEAD, Member("DLC"), Member("EDL"), Member("DataBytes", 64, BYTES)]
    content = struct.pack("<BIBBB64s", 1, 0x12, 0, code, fd, bytes(range(64)))
    frame = only(write(tmp_path / "drive.mf4", Group(DATA, members, [(0.0, content)])))
    assert bytes(frame.data) == bytes(range(64))[: length if fd else min(code, 8)]
    assert frame.is_fd == bool(fd)


def test_a_frame_of_more_than_8_bytes_without_edl_is_a_can_fd_frame(tmp_path):
    members = [*HEAD, Member("DataLength"), Member("DataBytes", 16, BYTES)]
    records = [(0.0, struct.pack("<BIBB16s", 1, 0x12, 0, size, bytes(range(16)))) for size in (8, 16)]
    assert [frame.is_fd for frame in read(write(tmp_path / "drive.mf4", Group(DATA, members, records)))[0]] == [0, 1]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, UNSIGNED_BIG])
def test_data_bytes_that_are_a_number_are_its_bytes(tmp_path, size, kind):
    members = [*HEAD, Member("DLC"), Member("DataLength"), Member("DataBytes", size, kind)]
    data = bytes(range(1, size + 1))
    content = struct.pack("<BIBBB", 1, 0x12, 0, size, size) + data
    assert bytes(only(write(tmp_path / "drive.mf4", Group(DATA, members, [(0.0, content)]))).data) == data


@pytest.mark.parametrize(
    ("structure", "members", "content"),
    [
        ("CAN_ErrorFrame", [*HEAD, Member("DLC"), Member("DataBytes", 4)], struct.pack("<BIBBI", 1, 0, 0, 4, 1 << 24)),
        ("CAN_ErrorFrame", [Member("BusChannel")], b"\1"),
        ("CAN_ErrorFrame", [Member("BusChannel"), Member("ErrorType")], b"\1\2"),
        ("CAN_RemoteFrame", [*HEAD, Member("DataLength")], struct.pack("<BIBB", 1, 0x123, 0, 8)),
        ("CAN_RemoteFrame", HEAD, struct.pack("<BIB", 1, 0x123, 0)),
        ("CAN_RemoteFrame", [*HEAD, Member("DLC")], struct.pack("<BIBB", 1, 0x123, 0, 8)),
    ],
)
def test_an_odd_group_of_frames_without_data_costs_no_frame(tmp_path, structure, members, content):
    odd = Group(structure, members, [(0.0015, content)])
    for groups in ([odd, Group(DATA, WHOLE, [record(n) for n in range(5)])], [odd]):
        frames, notes = read(write(tmp_path / "drive.mf4", *groups))
        assert len(frames) == (6 if len(groups) == 2 else 1)
        assert sum(frame.is_error_frame or frame.is_remote_frame for frame in frames) == 1
        assert notes == ()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([*WHOLE[:2], Member("DataBytes", 8, BYTES)], "it has neither DataLength nor DLC"),
        ([Member("DLC"), Member("DataBytes", 8, BYTES)], "it has no ID"),
        ([*HEAD, Member("DLC")], "it has no DataBytes"),
    ],
)
def test_a_group_without_what_a_frame_needs_is_counted_and_costs_no_other(tmp_path, members, reason):
    odd = Group(DATA, members, [(0.0, b"\1" * sum(member.size for member in members))] * 3)
    frames, notes = read(write(tmp_path / "drive.mf4", odd, Group(DATA, WHOLE, [record(n) for n in range(5)])))
    assert len(frames) == 5
    assert notes == (f"channel group 0 (CAN_DataFrame), records not read: 3, because {reason}",)


def test_a_group_without_a_source_is_read_and_a_group_of_other_values_is_counted(tmp_path):
    plain = Group(DATA, WHOLE, [record(n) for n in range(5)], bus=False)
    other = Group("Position", [Member("Latitude", 4)], [(0.0, bytes(4))] * 7, bus=False)
    frames, notes = read(write(tmp_path / "drive.mf4", plain, other))
    assert len(frames) == 5
    assert notes == ("channel group 1 holds no CAN frames; records not read: 7",)


def test_a_log_of_one_bus_may_leave_out_its_number(tmp_path):
    members = [member for member in WHOLE if member.name != "BusChannel"]
    content = record(0)[1][1:]
    assert only(write(tmp_path / "drive.mf4", Group(DATA, members, [(0.0, content)]))).channel is None


# --- truncation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 8, 100, 20_000])
def test_a_log_that_was_cut_is_told(tmp_path, lost):
    path = write(tmp_path / "drive.mf4", Group(DATA, WHOLE, [record(n) for n in range(2_000)]))
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ValueError, match="corrupted or partially written"):
        read(path)


def test_fewer_records_than_the_group_says_are_told_after_those_that_are_there(tmp_path):
    path = write(tmp_path / "drive.mf4", Group(DATA, WHOLE, [record(n) for n in range(2_000)], claimed=2_500))
    frames: list[can.Message] = []
    with LogFile(path) as log, pytest.raises(Truncated, match=r"drive\.mf4: .* it has 500 more records of CAN frames"):
        frames.extend(log.messages())
    assert len(frames) == 2_000


def test_what_python_can_writes_comes_back(tmp_path):
    path = tmp_path / "drive.mf4"
    sent = [
        can.Message(timestamp=START.timestamp() + n, arbitration_id=n << 18, data=bytes(n), dlc=n, channel=n)
        for n in range(1, 9)
    ]
    with can.MF4Writer(path) as writer:
        for message in sent:
            writer.on_message_received(message)
    frames, notes = read(path)
    assert [(f.arbitration_id, f.is_extended_id, bytes(f.data)) for f in frames] == [
        (f.arbitration_id, True, bytes(f.data)) for f in sent
    ]
    assert notes == ()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "frames"),
    [
        ("mf4-one-odd-group-refuses-all/m3_err_scalar.mf4", [(0x123, False)] * 3),
        ("mf4-one-odd-group-refuses-all/m6_rtr_nodlc.mf4", [(0x123, False)] * 3),
        ("mf4-one-odd-group-refuses-all/m17_oneframe_1byte.mf4", [(0x123, False)]),
        ("mf4-without-ide/m1_noide.mf4", [(0x123, False), (0x194, True)]),
    ],
)
def test_the_collected_faults_come_out_right(case, frames):
    shared_data.require()
    found, _ = read(CASES / case)
    data = [(f.arbitration_id, f.is_extended_id) for f in found if not (f.is_error_frame or f.is_remote_frame)]
    assert data == frames


def test_the_notes_of_a_log_name_its_file(tmp_path):
    other = Group("Position", [Member("Latitude", 4)], [(0.0, bytes(4))], bus=False)
    path = write(tmp_path / "drive.mf4", Group(DATA, WHOLE, [record(0)]), other)
    with LogFile(path) as log:
        assert len(list(log.messages())) == 1
        assert log.notes == ("drive.mf4: channel group 1 holds no CAN frames; records not read: 1",)
    path.write_bytes(path.read_bytes()[:-40])
    with LogFile(path) as log, pytest.raises(Permanent, match=r"drive\.mf4: "):
        list(log.messages())
