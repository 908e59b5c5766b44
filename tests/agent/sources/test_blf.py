"""Every frame of a BLF log is read wherever it stands, what is not read is counted, and a lost end is told.

The logs are written byte by byte (`written_blf`), by python-can and by vblf, which are also second readers.
"""

import random
import struct
from pathlib import Path

import can
import pytest
from vblf import can as vblf_can
from vblf import constants as vblf_constants
from vblf import reader as vblf_reader
from vblf import writer as vblf_writer

from agent.errors import Permanent
from agent.sources.logs import LogFile, Truncated
from tests import shared_data
from tests.agent.sources import written_blf as blf
from tests.agent.sources.written_blf import an_object, container, padded

CASES = shared_data.DATA.parent / "cases" / "faults"


def read(path: Path) -> tuple[list[can.Message], tuple[str, ...]]:
    with LogFile(path) as log:
        return list(log.messages()), log.notes


def lost(path: Path) -> tuple[int, Truncated]:
    """Return how many frames come before the error that the end is missing, and the error."""
    frames = []
    with LogFile(path) as log, pytest.raises(Truncated) as caught:
        frames.extend(log.messages())  # An iterator that raises leaves what came before in the list.
    return len(frames), caught.value


def of(message: can.Message) -> tuple[object, ...]:
    """Return what counts of a frame, in the columns of a frame block."""
    return (
        round(message.timestamp * 1e6),
        message.channel,
        message.arbitration_id,
        message.is_extended_id,
        message.is_remote_frame,
        message.is_error_frame,
        message.is_fd,
        message.bitrate_switch,
        message.error_state_indicator,
        bytes(message.data),
    )


def numbered(count: int) -> list[bytes]:
    return [an_object(1, blf.message(0x100 + n % 9, bytes([n % 256])), ticks=n * 1_000_000) for n in range(count)]


def test_objects_beside_containers_are_read_in_their_order(tmp_path):
    one, two, three = (an_object(1, blf.message(data=bytes([n]))) for n in (1, 2, 3))
    path = blf.write(tmp_path / "drive.blf", one + padded(container(two)) + three)
    frames, notes = read(path)
    assert [bytes(frame.data) for frame in frames] == [b"\1", b"\2", b"\3"]
    assert notes == ()


def test_a_log_without_any_container_is_read(tmp_path):
    frames, _ = read(blf.write(tmp_path / "drive.blf", b"".join(numbered(300))))
    assert len(frames) == 300


def test_an_object_beside_the_containers_does_not_part_an_object_that_spans_them(tmp_path):
    spanning = an_object(1, blf.message(data=b"\7"))
    content = container(spanning[:20]) + an_object(1, blf.message(data=b"\1")) + container(spanning[20:])
    frames, _ = read(blf.write(tmp_path / "drive.blf", content))
    assert [bytes(frame.data) for frame in frames] == [b"\1", b"\7"]


@pytest.mark.parametrize("method", [0, 2])
@pytest.mark.parametrize("size", [1, 5, 33, 1000])
def test_objects_that_span_containers_of_any_size_are_read(tmp_path, method, size):
    inner = b"".join(padded(each) for each in (*numbered(40), an_object(65, b"text!"), *numbered(3)))
    pieces = [inner[at : at + size] for at in range(0, len(inner), size)]
    content = b"".join(padded(container(piece, method=method)) for piece in pieces)
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert len(frames) == 43
    assert notes == ("drive.blf: objects of type 65 (APP_TEXT), not read: 1",)


def test_both_units_of_time_and_the_three_versions_of_headers(tmp_path):
    content = b"".join(
        an_object(1, blf.message(), ticks=ticks, unit=unit, version=version)
        for version in (1, 2, 3)
        for ticks, unit in ((12_345, blf.TEN_MICROSECONDS), (123_450_001, blf.NANOSECONDS))
    )
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert [round((frame.timestamp - blf.START_S) * 1e6) for frame in frames] == [123_450] * 6
    assert [bytes(frame.data) for frame in frames] == [b"\1\2"] * 6
    assert notes == ("drive.blf: frames with header version 3, which were read like version 1: 2",)


def test_an_unknown_header_version_is_counted(tmp_path):
    content = an_object(1, blf.message(), version=9) * 2 + an_object(1, blf.message())
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert len(frames) == 1
    assert notes == ("drive.blf: objects of type 1 with the unknown header version 9, not read: 2",)


def test_flags_lengths_and_channels_of_every_kind_of_frame(tmp_path):
    wide = bytes(range(48))
    error_ext = struct.pack("<HHIBBBxIIHH8s", 2, 0, 0, 0, 0, 2, 0, 0x55, 0, 0, b"\xaa\xbb")
    content = b"".join(
        an_object(kind, body)
        for kind, body in [
            (1, blf.message(0x1ABCDE | blf.EXTENDED, b"\1", channel=3, flags=1)),  # sent by the recorder itself
            (1, blf.message(0x12, b"", flags=0x80, code=4)),  # remote
            (1, blf.message(0x13, b"12345678", code=15)),
            (86, blf.message(0x14, b"\2") + bytes(8)),
            (100, blf.fd_message(0x15, wide, fd_flags=7)),
            (100, blf.fd_message(0x16, b"\3", fd_flags=0)),  # a classic frame in an object for FD frames
            (101, blf.fd_message_64(0x17, wide, flags=0x7000, channel=200)),
            (101, blf.fd_message_64(0x18, wide[:4], valid=8)),  # zeros at the end are left out
            (101, blf.fd_message_64(0x19, b"", flags=0x10)),  # remote
            (2, struct.pack("<HHI", 1, 0, 0)),
            (73, error_ext),
            (104, struct.pack("<B11xI32x64x", 4, 0x66)),
        ]
    )
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert [of(frame)[1:] for frame in frames] == [
        (2, 0x1ABCDE, True, False, False, False, False, False, b"\1"),
        (0, 0x12, False, True, False, False, False, False, b""),
        (0, 0x13, False, False, False, False, False, False, b"12345678"),
        (0, 0x14, False, False, False, False, False, False, b"\2"),
        (0, 0x15, False, False, False, True, True, True, wide),
        (0, 0x16, False, False, False, False, False, False, b"\3"),
        (199, 0x17, False, False, False, True, True, True, wide),
        (0, 0x18, False, False, False, True, False, False, b"\0\1\2\3\0\0\0\0"),
        (0, 0x19, False, True, False, False, False, False, b""),
        (0, 0, False, False, True, False, False, False, b""),
        (1, 0x55, False, False, True, False, False, False, b"\xaa\xbb"),
        (3, 0x66, False, False, True, True, False, False, b""),
    ]
    assert notes == ()


def test_a_transmit_request_is_no_frame_and_what_became_of_it_is(tmp_path):
    content = b"".join(
        [
            an_object(1, blf.message(flags=2)),
            an_object(1, blf.message(flags=1)),
            an_object(100, blf.fd_message(0x15, b"\1", flags=2)),
            an_object(101, blf.fd_message_64(0x15, b"\1", direction=2)),
            an_object(101, blf.fd_message_64(0x15, b"\1", flags=0x1080, direction=1)),
            an_object(101, blf.fd_message_64(0x15, b"\1", flags=0x10C0, direction=1)),
        ]
    )
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert len(frames) == 2
    assert notes == ("drive.blf: transmit requests (TxRq), which are not frames of the bus, not read: 4",)


def test_what_is_unusual_and_has_one_meaning_is_told(tmp_path):
    content = an_object(1, blf.message(channel=0)) + an_object(1, blf.message(), unit=0, ticks=5_000)
    frames, notes = read(blf.write(tmp_path / "drive.blf", content))
    assert [frame.channel for frame in frames] == [-1, 0]
    assert round((frames[1].timestamp - blf.START_S) * 1e6) == 5
    assert notes == (
        "drive.blf: frames with channel 0, although BLF counts from 1; their bus is can-1: 1",
        "drive.blf: frames that do not say the unit of their time, which was read as 1 ns: 1",
    )


# --- the end is missing -----------------------------------------------------------------------------------------------


def test_every_cut_gives_what_is_whole_and_an_error(tmp_path):
    objects = numbered(30)
    inner = b"".join(objects)
    whole = blf.write(tmp_path / "whole.blf", padded(container(inner[:700])) + padded(container(inner[700:])))
    content, cut = whole.read_bytes(), tmp_path / "cut.blf"
    assert len(read(whole)[0]) == 30
    counts = []
    for size in range(145, len(content)):
        cut.write_bytes(content[:size])
        count, error = lost(cut)
        counts.append(count)
        assert str(error).startswith(f"{cut}: truncated or damaged .blf data: the log ")
    assert counts == sorted(counts)
    assert set(counts) > {0, 14, 30}  # 14 objects end in the first container


def test_a_cut_between_two_containers_is_found_by_the_header(tmp_path):
    half = container(b"".join(numbered(10)))
    path = blf.write(tmp_path / "drive.blf", half, claimed=144 + 2 * len(half))
    count, error = lost(path)
    assert count == 10
    assert f"the log has {144 + len(half):,} bytes, but its header says" in str(error)


@pytest.mark.parametrize("beside", [True, False])
def test_half_an_object_at_the_end_is_told(tmp_path, beside):
    content = b"".join(numbered(3))[:-20]
    count, error = lost(blf.write(tmp_path / "drive.blf", content if beside else container(content)))
    assert count == 2
    assert "28 bytes after it began" in str(error)


def test_a_whole_container_with_half_its_compressed_data_is_told(tmp_path):
    content = bytearray(container(b"".join(numbered(2000)))[:-200])
    content[8:12] = struct.pack("<I", len(content))
    count, error = lost(blf.write(tmp_path / "drive.blf", bytes(content)))
    assert 0 < count < 2000
    assert "the container at byte 144: its compressed data end too early" in str(error)


def test_fewer_objects_than_the_header_says_are_told(tmp_path):
    _, notes = read(blf.write(tmp_path / "drive.blf", container(b"".join(numbered(5))), objects=10))
    assert notes == ("drive.blf: the log has 5 objects, but its header says 10; copy the log again from the recorder",)


def test_the_header_of_a_recorder_that_did_not_stop_is_told(tmp_path):
    frames, notes = read(blf.write(tmp_path / "drive.blf", container(b"".join(numbered(5))), claimed=144))
    assert len(frames) == 5
    assert "so the recorder may not have stopped properly" in notes[0]


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (container(b"abc", method=5), r"the container at byte 144: it is compressed by the unknown method 5"),
        (container(b"x" * 50), r"the container at byte 144: no object begins at byte 0, so the log is damaged"),
        (an_object(65, b"") + b"x" * 50, r"no object begins at byte 176"),
        (an_object(1, b"\1\0"), r"at byte 144: an object of type 1 has only 34 bytes"),
        (an_object(1, blf.message(data=b"12345678")[:-4]), r"at byte 144: an object of type 1 has only 44 bytes"),
        (container(b"y" * 99)[:-9].replace(b"x\x9c", b"zz") + bytes(9), r"its compressed data are damaged"),
        (struct.pack("<4sHHII", b"LOBJ", 16, 1, 8, 1), r"at byte 144, an object claims 8 bytes"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, content, complaint):
    path = blf.write(tmp_path / "drive.blf", content)
    with pytest.raises(Permanent, match=r"drive\.blf: not a readable \.blf log: .*" + complaint):
        read(path)


# --- second writers and readers ---------------------------------------------------------------------------------------


def various(count: int) -> list[can.Message]:
    chance = random.Random(11)
    messages = []
    for n in range(count):
        fd, error = chance.random() < 0.3, chance.random() < 0.05
        remote = not fd and not error and chance.random() < 0.1
        size = chance.choice([0, 1, 7, 8, 12, 24, 64]) if fd else chance.randrange(9)
        extended = chance.random() < 0.4
        messages.append(
            can.Message(
                timestamp=blf.START_S + n * 0.001_003,
                arbitration_id=chance.randrange(1 << (29 if extended else 11)),
                is_extended_id=extended,
                is_error_frame=error,
                is_remote_frame=remote,
                is_fd=fd and not error,
                bitrate_switch=fd and not error and chance.random() < 0.5,
                error_state_indicator=fd and not error and chance.random() < 0.5,
                dlc=0 if error else size,
                data=b"" if remote or error else chance.randbytes(size),
                channel=chance.randrange(4),
            )
        )
    return messages


def test_what_python_can_writes_comes_back_and_both_readers_agree(tmp_path):
    path, messages = tmp_path / "drive.blf", various(5_000)  # more than one container
    with can.BLFWriter(path) as writer:
        for message in messages:
            writer.on_message_received(message)
    frames, notes = read(path)
    assert [of(frame) for frame in frames] == [of(message) for message in messages]
    assert [of(frame) for frame in frames] == [of(message) for message in can.BLFReader(path)]
    assert notes == ()


@pytest.mark.parametrize("level", [0, 6])
def test_what_vblf_writes_comes_back(tmp_path, level):
    path, unit = tmp_path / "drive.blf", vblf_constants.ObjFlags.TIME_ONE_NANS
    with vblf_writer.BlfWriter(path, compression_level=vblf_constants.Compression(level)) as writer:
        for n in range(4_000):
            data = bytes([n % 256, n // 256]) + bytes(6)
            writer.write(vblf_can.CanMessage.new(unit, n * 1_000, 1 + n % 3, 0, 8, 0x100 + n % 7, data))
            writer.write(vblf_can.CanMessage2.new(unit, n * 1_000, 2, 0, 8, 0x200, data, 0, 0))
    frames, notes = read(path)
    assert len(frames) == 8_000
    assert [frame.arbitration_id for frame in frames[::2]] == [0x100 + n % 7 for n in range(4_000)]
    assert [bytes(frame.data[:2]) for frame in frames[1::2]] == [bytes([n % 256, n // 256]) for n in range(4_000)]
    assert [frame.channel for frame in frames[:6:2]] == [0, 1, 2]
    assert not [note for note in notes if "not read" in note]


def test_vblf_reads_the_same_frames_of_objects_in_and_beside_containers(tmp_path):
    objects = [an_object(1, blf.message(0x100 + n, bytes([n]), channel=1 + n % 2), ticks=n * 1000) for n in range(60)]
    content = b"".join(objects[:10]) + padded(container(b"".join(objects[10:50]))) + b"".join(objects[50:])
    path = blf.write(tmp_path / "drive.blf", content)
    frames, _ = read(path)
    with vblf_reader.BlfReader(path) as reader:
        second = [(each.frame_id, each.channel - 1, each.data[: each.dlc]) for each in reader]
    assert [(frame.arbitration_id, frame.channel, bytes(frame.data)) for frame in frames] == second


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "frames", "truncated"),
    [
        ("blf-objects-outside-containers/b16_toplevel_mix.blf", 4, False),
        ("blf-skipped-containers/b12_hver3.blf", 3, False),
        ("blf-truncated/control.blf", 1500, False),
        ("blf-truncated/b3_trunc_10.blf", 1499, True),
        ("blf-truncated/b3_trunc_mid.blf", 1237, True),
    ],
)
def test_the_collected_faults_come_out_right(case, frames, truncated):
    shared_data.require()
    assert lost(CASES / case)[0] == frames if truncated else len(read(CASES / case)[0]) == frames
