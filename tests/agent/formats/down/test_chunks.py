import contextlib
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent, Untrusted
from agent.formats.down import chunks
from agent.formats.down.bundle import BUNDLE_BYTES
from agent.formats.down.chunks import (
    CHUNK_BYTES,
    MESSAGE_BYTES,
    PACKED_BYTES,
    REQUESTED,
    Chunk,
    ChunkName,
    ChunkRequest,
    LargeFile,
    build_chunk,
    build_chunk_request,
    is_large,
    large_field,
    large_file,
    matches_chunk,
    pack,
    parse_chunk,
    parse_chunk_request,
    unpack,
)

VEHICLE = "0b8a4a5e-31a6-4a5b-8d43-9b3c5a1de0f1"
NAMES = st.builds(ChunkName, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 2**32 - 1))


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def described(packed: bytes, document: bytes) -> LargeFile:
    file = large_file(large_field(document, packed), hashlib.sha256(packed).hexdigest(), len(packed))
    assert file is not None
    return file


@given(NAMES, st.binary(max_size=200))
def test_a_chunk_reads_back(name: ChunkName, content: bytes) -> None:
    assert parse_chunk(build_chunk(name, content)) == Chunk(name, content)


@given(st.lists(NAMES, min_size=1, max_size=REQUESTED, unique=True))
def test_a_request_reads_back(names: list[ChunkName]) -> None:
    assert parse_chunk_request(build_chunk_request(VEHICLE, names)) == ChunkRequest(VEHICLE, tuple(names))


def test_a_request_names_no_more_chunks_than_its_limit_and_each_once() -> None:
    names = [ChunkName("ab" * 32, 2**32 - 1 - index) for index in range(REQUESTED)]
    payload = build_chunk_request(VEHICLE, [*names, ChunkName("cd" * 32, 0)])
    assert parse_chunk_request(payload).chunks == tuple(names)
    assert parse_chunk_request(build_chunk_request(VEHICLE, [names[0], names[0]])).chunks == (names[0],)


@given(st.binary(max_size=500))
def test_any_bytes_are_a_value_or_untrusted(payload: bytes) -> None:
    for parse in (parse_chunk, parse_chunk_request):
        with contextlib.suppress(Untrusted):
            parse(payload)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1])
def test_every_chunk_of_a_document_matches_its_description_and_no_other_chunk_does(size: int) -> None:
    packed = noise(size)
    file = described(packed, b"x" * size)
    cut = [packed[start : start + CHUNK_BYTES] for start in range(0, size, CHUNK_BYTES)]
    assert len(file.hashes) == len(cut)
    for index, content in enumerate(cut):
        assert matches_chunk(file, index, content)
        assert not matches_chunk(file, index, content[:-1])
        assert not matches_chunk(file, index, bytes([content[0] ^ 1]) + content[1:])
        assert all(not matches_chunk(file, other, content) for other in range(len(cut)) if other != index)


def test_a_document_unpacks_to_itself_and_to_no_other_size() -> None:
    document = noise(5_000) * 300
    packed = pack(document)
    assert unpack(packed, len(document)) == document
    for size in (len(document) - 1, len(document) + 1):
        with pytest.raises(Untrusted, match="announces"):
            unpack(packed, size)
    with pytest.raises(Untrusted):
        unpack(packed[:-1], len(document))
    with pytest.raises(Untrusted):
        unpack(b"no zstd", 7)


def test_the_small_case_travels_in_the_bundle_and_the_large_one_in_chunks() -> None:
    assert not is_large(b"x", pack(b"x"))
    assert is_large(noise(30_000), pack(noise(30_000)))
    bomb = b"x" * 1_000_001
    assert is_large(bomb, pack(bomb))


def test_a_document_beyond_the_limit_of_a_vehicle_is_refused_at_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Permanent, match="split it"):
        large_field(b"x", bytes(PACKED_BYTES + 1))
    monkeypatch.setattr(chunks, "DOCUMENT_BYTES", 10)
    with pytest.raises(Permanent, match="split it"):
        large_field(b"x" * 11, b"x")


@pytest.mark.parametrize(
    "large",
    [
        None,
        {},
        {"bytes": 5, "chunks": "!"},
        {"bytes": 5, "chunks": ""},
        {"bytes": 0, "chunks": "MTIzNDU2Nzg="},
        {"bytes": 10**12, "chunks": "MTIzNDU2Nzg="},
        {"bytes": "5", "chunks": "MTIzNDU2Nzg="},
        {"bytes": 5, "chunks": "MTIzNDU2NzgxMjM0NTY3OA=="},
    ],
)
def test_a_description_that_contradicts_itself_is_untrusted(large: object) -> None:
    with pytest.raises(Untrusted):
        large_file({"large": large}, "ab" * 32, 100)


def test_a_target_without_a_description_is_not_large() -> None:
    assert large_file(None, "ab" * 32, 100) is None
    assert large_file({"audience": {}}, "ab" * 32, 100) is None


def test_the_largest_chunk_fits_the_packet_limit_of_every_broker() -> None:
    payload = build_chunk(ChunkName("ff" * 32, 2**32 - 1), noise(CHUNK_BYTES))
    assert len(payload) <= MESSAGE_BYTES <= BUNDLE_BYTES < 128_000
    with pytest.raises(Untrusted, match="at most"):
        parse_chunk(payload + bytes(200))
