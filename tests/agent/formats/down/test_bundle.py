import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Permanent, Untrusted
from agent.formats import push_pb2
from agent.formats.down.bundle import (
    BUNDLE_BYTES,
    CONTENT_BYTES,
    FILES,
    TIMESTAMP,
    SyncRequest,
    TruncatedBundle,
    Versions,
    build_bundle,
    build_request,
    have,
    parse_bundle,
    parse_request,
)

VEHICLE = "0f8fad5b-d9cb-469f-a165-70867728950e"
ROLE_FILES = st.builds(
    "metadata/{}.{}.json".format, st.integers(1, 2**31), st.sampled_from(["root", "snapshot", "targets"])
)
TARGET_FILES = st.builds(
    "targets/{}{:064x}.{}.json".format,
    st.sampled_from(["", "campaigns/"]),
    st.integers(0, 2**256 - 1),
    st.from_regex(r"[a-z0-9:_-]{1,20}", fullmatch=True),
)
U32 = st.integers(0, 2**32 - 1)


def packed(**fields: object) -> bytes:
    return zstandard.compress(push_pb2.Bundle(**({"format": 1} | fields)).SerializeToString())  # type: ignore[arg-type]


@given(st.dictionaries(st.just(TIMESTAMP) | ROLE_FILES | TARGET_FILES, st.binary(max_size=300), max_size=8))
def test_a_bundle_reads_as_it_was_built(files: dict[str, bytes]) -> None:
    assert parse_bundle(build_bundle(files)) == files


def test_equal_files_give_equal_bytes() -> None:
    files = {f"metadata/{version}.root.json": b"x" for version in range(2, 60)}
    assert build_bundle(files) == build_bundle(dict(reversed(files.items())))


@given(st.binary(max_size=400))
def test_garbage_is_no_bundle(garbage: bytes) -> None:
    with pytest.raises(Untrusted):
        parse_bundle(garbage)


@given(st.data())
def test_a_damaged_bundle_reads_as_a_bundle_or_is_untrusted(data: st.DataObject) -> None:
    bundle = bytearray(build_bundle({TIMESTAMP: bytes(range(200)), "metadata/2.root.json": b"x" * 90}))
    for _ in range(data.draw(st.integers(1, 4))):
        bundle[data.draw(st.integers(0, len(bundle) - 1))] = data.draw(st.integers(0, 255))
    try:
        files = parse_bundle(bytes(bundle))
    except Untrusted:
        return
    assert parse_bundle(build_bundle(files)) == files


def test_a_bundle_cut_short_says_so() -> None:
    bundle = build_bundle({TIMESTAMP: b"x" * 100})
    with pytest.raises(TruncatedBundle):
        parse_bundle(bundle[:-1])


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (bytes(BUNDLE_BYTES + 1), "at most"),
        (zstandard.compress(bytes(CONTENT_BYTES + 1)), "announces"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(CONTENT_BYTES * 3)), "announces"),
        (zstandard.compress(b"\xff\xff\xff"), "not a protobuf"),
        (packed(format=2), "format 2, and this side reads format 1: update the older side"),
        (packed(files={"../../etc/passwd": b""}), "is not allowed"),
        (packed(files={"/metadata/timestamp.json": b""}), "is not allowed"),
        (packed(files={"metadata/0.root.json": b""}), "is not allowed"),
        (packed(files={f"metadata/{version}.root.json": b"" for version in range(1, FILES + 2)}), "files"),
    ],
)
def test_what_is_no_bundle_of_ours_is_refused_with_its_reason(payload: bytes, complaint: str) -> None:
    with pytest.raises(Untrusted, match=complaint):
        parse_bundle(payload)


def test_a_bundle_that_no_message_carries_is_not_built() -> None:
    with pytest.raises(Permanent, match="publish fewer"):
        build_bundle({TIMESTAMP: random.Random(1).randbytes(BUNDLE_BYTES)})


def test_a_file_with_a_strange_name_is_not_built() -> None:
    with pytest.raises(Permanent, match="letters"):
        build_bundle({"targets/x": b""})


@given(U32, U32, U32, U32, U32, U32, st.lists(st.binary(min_size=8, max_size=8), max_size=5))
def test_a_request_reads_as_it_was_built(
    root: int, timestamp: int, snapshot: int, targets: int, applied: int, refused: int, held: list[bytes]
) -> None:
    request = SyncRequest(VEHICLE, Versions(root, timestamp, snapshot, targets), applied, refused, tuple(held))
    assert parse_request(build_request(request)) == request


@given(st.binary(max_size=200))
def test_garbage_is_no_request(garbage: bytes) -> None:
    with pytest.raises(Untrusted):
        parse_request(garbage)


def test_a_request_with_more_files_than_are_listed_is_still_read() -> None:
    many = tuple(have(b"%d" % index) for index in range(1000))
    assert len(parse_request(build_request(SyncRequest(VEHICLE, Versions(), have=many))).have) < 1000
