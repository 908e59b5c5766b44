"""Logs of every format and compression that python-can offers are read.  Each defect is one clear error."""

import bz2
import gzip
import lzma
import random
import re
import struct
import zlib
from pathlib import Path

import can
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import Permanent
from agent.sources.logs import LogFile

START = 1_700_000_000.0
MESSAGES = [
    can.Message(
        timestamp=START + n / 1000, arbitration_id=0x100 + n % 7, is_extended_id=False, data=bytes([n, 1, 2]), channel=1
    )
    for n in range(200)
]
CANDUMP = b"".join(b"(%d.%06d) can1 %03X#%02X0102\n" % (START, n * 1000, 0x100 + n % 7, n) for n in range(200))
PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress, "": bytes}


def frames(path):
    with LogFile(path) as log:
        return [(round(m.timestamp, 6), m.arbitration_id, bytes(m.data)) for m in log.messages()]


EXPECTED = [(round(m.timestamp, 6), m.arbitration_id, bytes(m.data)) for m in MESSAGES]


@pytest.mark.parametrize("suffix", [".log", ".asc", ".blf", ".trc", ".csv", ".db", ".mf4"])
def test_every_format_that_python_can_writes_is_read_back(tmp_path, suffix):
    path = tmp_path / f"drive{suffix}"
    with can.Logger(path) as logger:
        for message in MESSAGES:
            logger.on_message_received(message)
    read = frames(path)
    assert [frame[1:] for frame in read] == [frame[1:] for frame in EXPECTED]
    for (t, *_), (expected, *_) in zip(read, EXPECTED, strict=True):
        assert t == pytest.approx(expected, abs=0.0011)  # ASC and BLF store the start to a millisecond


@pytest.mark.parametrize("compression", PACK)
def test_every_compression_gives_the_same_frames(tmp_path, compression):
    path = tmp_path / f"drive.log{compression}"
    path.write_bytes(PACK[compression](CANDUMP))
    assert frames(path) == EXPECTED


def test_binary_logs_may_be_compressed_too(tmp_path):
    plain = tmp_path / "drive.blf"
    with can.Logger(plain) as logger:
        for message in MESSAGES:
            logger.on_message_received(message)
    packed = tmp_path / "drive.BLF.ZST"
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    assert frames(packed) == frames(plain)


def test_zstd_frames_one_after_the_other_are_one_log(tmp_path):
    path = tmp_path / "drive.log.zst"
    half = len(CANDUMP) // 2
    path.write_bytes(zstandard.compress(CANDUMP[:half]) + zstandard.compress(CANDUMP[half:]))
    assert frames(path) == EXPECTED


@pytest.mark.parametrize("compression", [".gz", ".xz", ".bz2", ".zst"])
def test_a_truncated_log_is_named_with_the_remedy(tmp_path, compression):
    path = tmp_path / f"drive.log{compression}"
    packed = PACK[compression](CANDUMP)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    complaint = rf"drive\.log{compression}: truncated or damaged \{compression} data: .*copy it again"
    with pytest.raises(Permanent, match=complaint):
        frames(path)


def test_truncation_far_into_a_log_is_named_with_its_line(tmp_path):
    path = tmp_path / "drive.log.zst"
    chance = random.Random(1)
    lines = b"".join(b"(%d.0) can0 123#%s\n" % (n, chance.randbytes(8).hex().encode()) for n in range(40_000))
    path.write_bytes(zstandard.compress(lines)[:-100])
    with pytest.raises(Permanent, match=r"drive\.log\.zst: line \d{4,}: truncated or damaged"):
        frames(path)


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "drive.log"
    path.write_bytes(CANDUMP + b"(1700000001.0) can1 no frame\n")
    with pytest.raises(Permanent, match=r"drive\.log: line 201: '\(1700000001\.0\) can1 no frame' is not a line"):
        frames(path)


@pytest.mark.parametrize("suffix", [".blf", ".blf.gz"])
@pytest.mark.parametrize("place", [4, None])
def test_sizes_that_a_blf_log_claims_take_no_memory(tmp_path, suffix, place):
    content = bytearray(_written(tmp_path, ".blf"))
    at = place or content.index(b"LOBJ") + 8  # the size field of the file header, or of the first object
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(PACK[path.suffix if path.suffix in PACK else ""](bytes(content)))
    with pytest.raises(Permanent, match=r"claims 4294967295 bytes|an object of 4294967295 bytes"):
        frames(path)


def test_a_blf_container_that_unpacks_to_more_than_any_is_refused(tmp_path):
    content = _written(tmp_path, ".blf")
    packed = zlib.compress(bytes(70 * 1024 * 1024), 9)
    container = struct.pack("<4sHHIIH6xL4x", b"LOBJ", 16, 1, 32 + len(packed), 10, 2, 1_000) + packed
    path = tmp_path / "damaged.blf"
    path.write_bytes(content[: content.index(b"LOBJ")] + container)
    with pytest.raises(Permanent, match=r"container at byte 144: it decompresses to more than"):
        frames(path)


@pytest.mark.parametrize("damage", [lambda c: c[:3000], lambda c: c[:100] + b"\xff" * 40 + c[140:]])
def test_what_asammdf_says_of_a_damaged_log_is_permanent(tmp_path, damage):
    path = tmp_path / "damaged.mf4"
    path.write_bytes(damage(_written(tmp_path, ".mf4")))
    with pytest.raises(Permanent, match=r"damaged\.mf4: "):
        frames(path)


def test_a_log_that_crashes_asammdf_is_permanent_and_crashes_nothing_else(tmp_path):
    path = tmp_path / "damaged.mf4"
    path.write_bytes((Path(__file__).parents[2] / "fuzz" / "regressions" / "mf4" / "crash").read_bytes())
    with pytest.raises(Permanent, match=r"damaged\.mf4: not a readable \.mf4 log: its reader crashed with signal 11"):
        frames(path)


def test_a_line_without_end_is_refused(tmp_path):
    path = tmp_path / "drive.log"
    path.write_bytes(b"\0" * 100_000)
    with pytest.raises(Permanent, match=r"line 1: .* 16,384 characters or more"):
        frames(path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("gone.log", None, "the log cannot be read: No such file or directory"),
        ("drive.log", b"", "the log is empty"),
        ("drive.txt", b"x", "unknown log format; name the file by its format: .log .asc"),
        ("drive", b"x", "unknown log format"),
        ("drive.zst", b"x", "unknown log format"),
        ("drive.lg", None, "the log cannot be read: No such file or directory; check path and permissions"),
        ("drive.mf4.gz", b"x", "a .mf4 log cannot be read while compressed; decompress it first"),
        ("drive.blf", b"not a blf file at all", "not a readable .blf log"),
        ("drive.db", b"not a database" * 100, "not a readable .db log"),
        ("drive.log.gz", b"not gzip", "not a readable .log log: Not a gzipped file"),
    ],
)
def test_what_is_no_log_is_named_with_the_reason(tmp_path, name, content, complaint):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Permanent, match=re.escape(f"{path}: {complaint}")):
        frames(path)


@pytest.mark.parametrize("suffix", [".log", ".asc", ".blf", ".trc", ".csv", ".log.zst", ".log.gz"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_raises_anything_but_permanent(tmp_path, suffix, data):
    path = tmp_path / f"damaged{suffix}"
    content = bytearray(_written(tmp_path, suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(content)
    try:
        frames(path)
    except Permanent as error:
        assert str(error).startswith(str(path))


_cache: dict[str, bytes] = {}


def _written(folder, suffix):
    """Return the content of a log in the format `suffix`, which is made once and cached."""
    if suffix not in _cache:
        inner = folder / f"made.{suffix.split('.')[1]}"
        with can.Logger(inner) as logger:
            for message in MESSAGES[:20]:
                logger.on_message_received(message)
        compression = "".join(inner.with_suffix(suffix).suffixes[1:])
        _cache[suffix] = PACK[compression](inner.read_bytes())
    return _cache[suffix]
