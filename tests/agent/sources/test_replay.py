"""Replay yields every frame of the requested channels, in the order of the log."""

import asyncio
import contextlib
import sqlite3

import can
import numpy as np
import pytest
import zstandard

from agent.errors import Permanent
from agent.sources.replay import ReplaySource, channels_of, read_blocks
from can_dbc.frames import BRS, ERROR, ESI, EXTENDED, FD, REMOTE, concatenate
from tests import shared_data

LOG = """\
(1000.000001) can0 123#0102
(1000.000500) vcan1 18FF0012#0102030405060708
(999.999999) can0 7FF#
(1000.001000) can0 123##3AABBCCDDEEFF00112233
(1000.002000) can0 124#R4
(1000.003000) can0 20000088#0000000000000000
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "drive.log"
    path.write_text(LOG)
    return path


def test_frames_become_columns_in_the_order_of_the_log(log):
    (block,) = read_blocks(log)
    assert block.buses == ("can0", "vcan1")
    assert block.t_ns.tolist()[:4] == [1000_000001_000, 1000_000500_000, 999_999999_000, 1000_001000_000]
    assert block.bus.tolist() == [0, 1, 0, 0, 0, 0]
    assert block.can_id.tolist()[:5] == [0x123, 0x18FF0012, 0x7FF, 0x123, 0x124]
    assert block.flags.tolist()[:5] == [0, EXTENDED, 0, FD | BRS | ESI, REMOTE]
    assert block.flags[5] & ERROR
    assert block.length.tolist()[:5] == [2, 8, 0, 10, 0]
    assert block.data.shape == (6, 64)
    assert block.data[3, :11].tobytes().hex() == "aabbccddeeff0011223300"


def test_blocks_are_bounded_and_count_positions_without_a_gap(log):
    blocks = list(read_blocks(log, block_frames=4))
    assert [(block.first, len(block)) for block in blocks] == [(0, 4), (4, 2)]
    assert [block.data.shape[1] for block in blocks] == [64, 8]


def test_channels_select_and_order_the_buses_and_positions_count_what_is_selected(log):
    blocks = list(read_blocks(log, channels=["vcan1", "can0"], block_frames=2))
    assert {block.buses for block in blocks} == {("vcan1", "can0")}
    assert np.concatenate([block.bus for block in blocks]).tolist() == [1, 0, 1, 1, 1, 1]
    (only,) = read_blocks(log, channels=["vcan1"], block_frames=2)
    assert (only.first, only.can_id.tolist(), only.buses) == (0, [0x18FF0012], ("vcan1",))


def test_channel_numbers_become_names_as_python_can_counts_them(tmp_path):
    # The writers of ASC, BLF and TRC add 1 to the channel, but the reader of TRC does not subtract it.  CSV and db do
    # not store the channel.
    for suffix, name in ((".asc", "can1"), (".blf", "can1"), (".trc", "can2"), (".csv", "can0"), (".db", "can0")):
        path = tmp_path / f"drive{suffix}"
        with can.Logger(path) as logger:
            logger.on_message_received(can.Message(timestamp=1e9, arbitration_id=1, channel=1, data=b"\x01"))
        assert channels_of(path) == (name,), suffix


def test_a_log_without_a_wanted_channel_names_those_it_has(log):
    with pytest.raises(Permanent, match=r"drive\.log: the log has no frame of can7; its channels are can0, vcan1"):
        list(read_blocks(log, channels=["can7"]))


def test_a_log_without_frames_is_refused(tmp_path):
    path = tmp_path / "drive.log"
    path.write_text("\n\n")
    with pytest.raises(Permanent, match="holds no CAN frame"):
        list(read_blocks(path))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("(1.0) can0 123##0" + "00" * 65, "has 65 data bytes; CAN FD has at most 64"),
        ("(99999999999.0) can0 123#00", "a timestamp is not a number of seconds"),
        ("(nan) can0 123#00", "is not a line of candump"),
        ("(1.0) can0 -1#00", "is not a line of candump"),
    ],
)
def test_what_is_no_can_frame_is_refused(tmp_path, line, complaint):
    path = tmp_path / "drive.log"
    path.write_text(line + "\n")
    with pytest.raises(Permanent, match=complaint):
        list(read_blocks(path))


def test_more_channels_than_a_block_can_name_are_refused(tmp_path):
    path = tmp_path / "drive.log"
    path.write_text("".join(f"(1.0) bus{n} 123#00\n" for n in range(257)))
    with pytest.raises(Permanent, match="more than 256 channels"):
        list(read_blocks(path))


def test_progress_is_reported_by_bytes_of_the_file(log):
    seen = []
    list(read_blocks(log, block_frames=2, progress=lambda position, size: seen.append((position, size))))
    assert len(seen) == 3
    assert seen[-1] == (len(LOG), len(LOG))


async def collect(source):
    return [block async for block in source.blocks()]


def test_a_source_delivers_every_frame_and_always_the_same_buses(log):
    source = ReplaySource(log, speed=0)
    assert (source.name, source.buses) == ("drive.log", ("can0", "vcan1"))
    block = concatenate(asyncio.run(collect(source)))
    assert block.can_id.tolist() == concatenate(list(read_blocks(log))).can_id.tolist()


def test_a_source_restricted_to_channels_delivers_those(log):
    source = ReplaySource(log, channels=("can0",), speed=0, name="left")
    assert (source.name, source.buses) == ("left", ("can0",))
    assert len(concatenate(asyncio.run(collect(source)))) == 5


def test_a_sqlite_log_can_be_replayed(tmp_path):
    path = tmp_path / "drive.db"
    with can.Logger(path) as logger:
        logger.on_message_received(can.Message(timestamp=1e9, arbitration_id=1, data=b"\x01"))
    with contextlib.closing(sqlite3.connect(path)) as database, database:  # its own writer loses frames
        database.executemany(
            "INSERT INTO messages VALUES (?, 1, 0, 0, 0, 1, x'01')", [(1e9 + n,) for n in range(9_999)]
        )
    assert len(concatenate(asyncio.run(collect(ReplaySource(path, speed=0))))) == 10_000


def test_damage_in_the_log_ends_the_source_with_its_error(tmp_path):
    path = tmp_path / "drive.log.zst"
    path.write_bytes(zstandard.compress(LOG.encode() * 1000)[:-20])
    with pytest.raises(Permanent, match=r"drive\.log\.zst: truncated or damaged"):
        asyncio.run(collect(ReplaySource(path, channels=("can0",), speed=0)))


def test_a_source_that_is_left_early_closes_its_log_and_thread(log):
    async def first():
        blocks = ReplaySource(log, channels=("can0",), speed=0).blocks()
        block = await anext(blocks)
        await blocks.aclose()
        return block

    assert len(asyncio.run(first())) == 5


@pytest.mark.shared
@pytest.mark.parametrize("capture", shared_data.captures(), ids=str)
def test_every_open_capture_is_read_whole_to_the_microsecond(capture):
    blocks = list(read_blocks(capture.path))
    assert sum(len(block) for block in blocks) == capture.frames
    with zstandard.open(capture.path, "rt") as text:
        stamps = [int(line[1 : line.index(")")].replace(".", "")) for line in text]
    assert (np.concatenate([block.t_ns for block in blocks]) // 1000).tolist() == stamps


def test_a_replay_goes_on_behind_the_frames_that_are_durable(log):
    whole = concatenate(list(read_blocks(log)))
    for begin in range(len(whole) + 1):
        source = ReplaySource(log, speed=0)
        source.begin(used=6, needed=begin)
        blocks = asyncio.run(collect(source))
        assert [block.first for block in blocks] == ([begin] if begin < 6 else [])
        assert [i for block in blocks for i in block.can_id.tolist()] == whole.can_id.tolist()[begin:]


def test_positions_count_the_frames_of_the_channels(log):
    source = ReplaySource(log, channels=("can0",), speed=0)
    source.begin(used=2, needed=2)
    (rest,) = asyncio.run(collect(source))
    assert (rest.first, rest.t_ns.tolist()[0]) == (2, 1000_001000_000)


def test_a_log_is_known_by_its_name_its_beginning_and_its_channels(log, tmp_path):
    name = ReplaySource(log).position_name
    assert ReplaySource(log).position_name == name
    assert ReplaySource(log, channels=("can0",)).position_name != name
    copy = tmp_path / "again.log"
    copy.write_text(LOG)
    assert ReplaySource(copy).position_name != name
    log.write_text(LOG.replace("123#0102", "123#0103"))
    assert ReplaySource(log).position_name != name
