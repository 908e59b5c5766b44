"""The count of a log's frames needs neither the agent's readers nor the oracle's, and shows what they skip."""

from collections.abc import Callable
from pathlib import Path

import can
import pytest
import zstandard

from agent.errors import Permanent
from agent.sources.replay import read_blocks
from lab.demo.input import recorded
from lab.demo.log_count import count_frames
from lab.demo.oracle import read_log
from tests.agent.sources import test_blf, written_blf, written_mf4
from tests.agent.sources.test_mf4_groups import DATA, WHOLE, record

TEXTS = {
    ".log": """\
(1700000000.000001) can0 123#00F6FF
(1700000000.100000) can0 18FEF100##100
(1700000000.200000) can0 20000088#0000000000000000
(1700000000.300000) can0 123#R3
 (1700000000.400000)  can0  123   [2]  01 02
 (000.5)  can0  1F334455   [0]
 DROPCOUNT: dropped 3 CAN frames on 'can0' socket (total drops 3)

""",
    ".asc": """\
date Tue Jan 2 10:00:00.000 2024
base hex  timestamps absolute
internal events logged
Begin Triggerblock Tue Jan 2 10:00:00.000 2024
   0.000000 Start of measurement
   0.100000 1  123             Rx   d 2 01 02
   0.200000 2  18FEF100x       Tx   d 0
   0.300000 1  123             TxRq d 2 01 02
   0.400000 1  ErrorFrame
   0.500000 CANFD   1 Rx        123                                   1 0 9 12 00 00 00 00 00 00 00 00 00 00 00 00
   0.600000 1  Statistic: D 10 R 0 XD 0 XR 0 E 0 O 0 B 1.00%
   0.700000 1  7FF             Rx   r
End TriggerBlock
""",
    ".trc": """\
;$FILEVERSION=1.1
;$STARTTIME=43008.9
1) 1.0 Rx 0123 2 01 02
2) 2.0 Warng FFFFFFFF 4 00 00 00 08 BUSHEAVY
3) 3.0 Tx 0123 2 01 02
""",
    ".csv": "timestamp,arbitration_id,extended,remote,error,dlc,data\n1.0,0x1,0,0,0,1,AQ==\n2.0,0x1,0,0,0,1,AQ==\n",
}


@pytest.mark.parametrize(("suffix", "frames"), [(".log", 6), (".asc", 5), (".trc", 2), (".csv", 2)])
def test_what_marks_a_frame_is_counted(tmp_path: Path, suffix: str, frames: int) -> None:
    log = tmp_path / f"drive{suffix}"
    log.write_text(TEXTS[suffix])
    assert count_frames(log).frames == frames


@pytest.mark.parametrize("suffix", [".log", ".asc", ".blf", ".csv", ".db", ".mf4"])
def test_agent_and_oracle_and_count_agree_on_what_python_can_writes(tmp_path: Path, suffix: str) -> None:
    log = tmp_path / f"drive{suffix}"
    with can.Logger(log) as logger:
        for message in test_blf.various(300):
            if not (message.is_fd and suffix == ".csv"):
                logger.on_message_received(message)
    counted = count_frames(log).frames
    assert counted == sum(len(block) for block in read_blocks(log)) == sum(1 for _ in read_log(log))


def test_the_oracle_reads_the_same_frames_of_a_blf_log_as_the_agent(tmp_path: Path) -> None:
    objects = test_blf.numbered(50)
    content = objects[0] + written_blf.container(b"".join(objects[1:])) + written_blf.an_object(65, b"LOBJ of text")
    log = written_blf.write(tmp_path / "drive.blf", content)
    (block,) = read_blocks(log)
    found = [(block.t_ns[n], block.can_id[n], bytes(block.data[n, : block.length[n]])) for n in range(len(block))]
    assert [(frame.t_ns, frame.can_id, frame.data) for frame in read_log(log)] == found


def _cut_blf(folder: Path) -> Path:
    log = written_blf.write(folder / "drive.blf", written_blf.container(b"".join(test_blf.numbered(500))))
    log.write_bytes(log.read_bytes()[:-10])
    return log


def _half_blf(folder: Path) -> Path:
    return written_blf.write(folder / "drive.blf", written_blf.container(b"".join(test_blf.numbered(500))[:-10]))


def _cut_mf4(folder: Path) -> Path:
    log = written_mf4.write(folder / "drive.mf4", written_mf4.Group(DATA, WHOLE, [record(n) for n in range(500)]))
    log.write_bytes(log.read_bytes()[:-10])
    return log


def _cut_zst(folder: Path) -> Path:
    log = folder / "drive.log.zst"
    log.write_bytes(zstandard.compress(TEXTS[".log"].encode())[:-10])
    return log


@pytest.mark.parametrize("cut", [_cut_blf, _half_blf, _cut_mf4, _cut_zst])
def test_the_demonstration_refuses_a_log_that_has_lost_its_end(tmp_path: Path, cut: Callable[[Path], Path]) -> None:
    log, folder = cut(tmp_path), tmp_path / "unpacked"
    folder.mkdir()
    with pytest.raises(Permanent, match=rf"{log.name}: The log .*Copy it again"):
        recorded(log, [], "exact", folder)
