"""Describe large documents, and build and parse the messages that carry them in chunks.  Pure.

    hu/v1/fetch/<vehicle>   protobuf ChunkRequest: the next chunks that the vehicle lacks
    hu/v1/chunk/<vehicle>   protobuf Chunk: one chunk

A large document, such as a DBC file of 5 MB, does not fit into a bundle.  It is published packed, as one zstd frame,
and the TUF target is this packed file.  The packed file travels in chunks of CHUNK_BYTES; only the last one is shorter.
The field `custom` of the target describes it:

    {"large": {"bytes": 5242880, "chunks": "mDk0...=="}}

`bytes` is the size of the document before packing, and `chunks` has the first HASH_BYTES of the SHA-256 of each chunk,
in base64.  TUF signs the field, so a vehicle checks each chunk on arrival, and a forged chunk costs no other one.

Invariants:

- A payload from outside becomes a value of this module or raises Untrusted.  Nothing is decompressed before the whole
  packed file has matched its signed SHA-256.
- A chunk is named by its document's SHA-256 and its number.  It can therefore arrive in any order, twice, or between
  chunks of other documents, on any connection.
"""

import base64
import hashlib
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import zstandard
from google.protobuf.message import DecodeError

from agent.errors import Permanent, Untrusted
from agent.formats import push_pb2
from agent.formats.topics import is_vehicle

FORMAT: Final = 1
CHUNK_BYTES: Final = 98_304
"""The size of a chunk: within the 128 KB of an AWS IoT Core message, as a bundle is."""
PACKED_BYTES: Final = 8_000_000
"""The size limit of a packed document, and of all packed documents of one vehicle together.

A DBC file of 50 MB has some 5 MB.  A vehicle keeps three releases and the one that it fetches, so the limit also bounds
its flash to 32 MB.
"""
DOCUMENT_BYTES: Final = 64_000_000
"""The size limit of a document before packing, and of all large documents of one vehicle together.

It stops decompression bombs, because the verifier and the agent hold all documents of a release in memory.
"""
LARGE_PACKED_BYTES: Final = 20_000
LARGE_BYTES: Final = 1_000_000
"""A document is large if it has more than LARGE_PACKED_BYTES packed, or more than LARGE_BYTES before packing.

Five documents below the first limit fit into one bundle.  The second limit keeps the content of a bundle bounded.
"""
HASH_BYTES: Final = 8
"""The length of the hash prefix of a chunk.  It only finds damage early: the SHA-256 of the whole file decides."""
REQUESTED: Final = 4
"""A request names at most this many chunks, so that the answer delays an acknowledgement by at most 400 KB."""
REQUEST_BYTES: Final = 400
MESSAGE_BYTES: Final = CHUNK_BYTES + 100
"""The size limit of a chunk with its name."""
_WINDOW_BYTES: Final = 1 << 23


Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A SHA-256 in hex.  It becomes a path, so msgspec refuses any other text in a verdict and in a stored record."""


class LargeFile(msgspec.Struct, frozen=True):
    """Describes a packed document, as its signed target does.

    `sha256` is the hash of the packed file in hex, and `size_bytes` its size.  `document_bytes` is the size of the
    document.  `hashes` has the hash prefix of each chunk.
    """

    sha256: Sha256
    size_bytes: int
    document_bytes: int
    hashes: tuple[bytes, ...]

    def length_of(self, index: int) -> int:
        """Return the number of bytes of the chunk `index`."""
        return min(CHUNK_BYTES, self.size_bytes - index * CHUNK_BYTES)


class ChunkName(msgspec.Struct, frozen=True):
    """Names one chunk by the SHA-256 (hex) of its packed document and by its number, from 0."""

    sha256: str
    index: int


class Chunk(msgspec.Struct, frozen=True):
    """Holds one chunk that is not verified yet."""

    name: ChunkName
    content: bytes


class ChunkRequest(msgspec.Struct, frozen=True):
    """A vehicle's request for chunks."""

    vehicle: str
    chunks: tuple[ChunkName, ...]


def pack(document: bytes) -> bytes:
    """Return the packed form of a document.  Equal documents give equal bytes, as long as zstd stays the same."""
    # The signed hash makes a checksum unnecessary.
    return zstandard.ZstdCompressor(level=19, write_checksum=False).compress(document)


def unpack(packed: bytes, document_bytes: int) -> bytes:
    """Return the document of `document_bytes` bytes in a packed file that has matched its signed hash.

    Raises: Untrusted if the file is not one zstd frame with this many bytes.
    """
    try:
        size = zstandard.frame_content_size(packed)
        if size != document_bytes or size > DOCUMENT_BYTES:
            raise Untrusted(f"The packed document announces {size} bytes, but {document_bytes} bytes are signed.")
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).stream_reader(packed) as reader:
            document = reader.read(size + 1)
    except zstandard.ZstdError as error:
        raise Untrusted("The packed document is not a zstd frame.") from error
    if len(document) != size:
        raise Untrusted(f"The packed document has {len(document)} bytes of content, but announces {size}.")
    return document


def is_large(document: bytes, packed: bytes) -> bool:
    """Return whether a document travels in chunks, and not in the bundle."""
    return len(packed) > LARGE_PACKED_BYTES or len(document) > LARGE_BYTES


def large_field(document: bytes, packed: bytes) -> dict[str, object]:
    """Return the field `custom` of the target of a large document.

    Raises: Permanent if the document is too large for vehicles.
    """
    if len(packed) > PACKED_BYTES or len(document) > DOCUMENT_BYTES:
        raise Permanent(
            f"the document has {len(document):,} bytes ({len(packed):,} packed); a vehicle takes at most "
            f"{DOCUMENT_BYTES:,} ({PACKED_BYTES:,} packed): split it, or remove what vehicles do not need"
        )
    prefixes = b"".join(_prefix(packed[start : start + CHUNK_BYTES]) for start in range(0, len(packed), CHUNK_BYTES))
    return {"large": {"bytes": len(document), "chunks": base64.b64encode(prefixes).decode()}}


def large_file(custom: object, sha256: str, size_bytes: int) -> LargeFile | None:
    """Return the description of a large document, or None if the target with these fields is not large.

    Raises: Untrusted if the description contradicts itself or exceeds a limit.
    """
    if not isinstance(custom, dict) or "large" not in custom:
        return None
    match custom["large"]:
        case {"bytes": int(document_bytes), "chunks": str(text)} if 0 < document_bytes <= DOCUMENT_BYTES:
            try:
                prefixes = base64.b64decode(text, validate=True)
            except (Base64Error, ValueError) as error:
                raise Untrusted("The hashes of a large document's chunks are not base64.") from error
            count = -(-size_bytes // CHUNK_BYTES)
            if 0 < size_bytes <= PACKED_BYTES and len(prefixes) == count * HASH_BYTES:
                hashes = tuple(prefixes[start : start + HASH_BYTES] for start in range(0, len(prefixes), HASH_BYTES))
                return LargeFile(sha256, size_bytes, document_bytes, hashes)
    raise Untrusted(
        f"The description of a large document with {size_bytes} bytes is malformed, or above the limit of "
        f"{PACKED_BYTES} bytes."
    )


def matches_chunk(file: LargeFile, index: int, content: bytes) -> bool:
    """Return whether `content` is the chunk `index` of `file`, by its length and its signed hash prefix."""
    return len(content) == file.length_of(index) and _prefix(content) == file.hashes[index]


def build_chunk_request(vehicle: str, chunks: Sequence[ChunkName]) -> bytes:
    """Return the payload for `hu/v1/fetch/<vehicle>`, which names at most the first REQUESTED of `chunks`."""
    message = push_pb2.ChunkRequest(format=FORMAT, vehicle=vehicle, chunks=map(_to_message, chunks[:REQUESTED]))
    return message.SerializeToString(deterministic=True)


def parse_chunk_request(payload: bytes) -> ChunkRequest:
    """Return the request in a payload.  Raises: Untrusted if the payload is malformed or exceeds a limit."""
    if len(payload) > REQUEST_BYTES:
        raise Untrusted(f"The chunk request has {len(payload)} bytes; at most {REQUEST_BYTES} are allowed.")
    message = push_pb2.ChunkRequest()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise Untrusted("The chunk request is not a protobuf ChunkRequest.") from error
    _check_format("chunk request", message.format)
    if not is_vehicle(message.vehicle):
        raise Untrusted(f"The chunk request names {message.vehicle[:60]!r}, which is not the pseudonym of a vehicle.")
    # Each chunk is answered once, however often the request names it.
    names = tuple(dict.fromkeys(map(_from_message, message.chunks)))
    if not 0 < len(message.chunks) <= REQUESTED:
        raise Untrusted(f"The chunk request names {len(message.chunks)} chunks; it must name 1 to {REQUESTED}.")
    return ChunkRequest(message.vehicle, names)


def build_chunk(name: ChunkName, content: bytes) -> bytes:
    """Return the payload for `hu/v1/chunk/<vehicle>`."""
    return push_pb2.Chunk(format=FORMAT, name=_to_message(name), content=content).SerializeToString(deterministic=True)


def parse_chunk(payload: bytes) -> Chunk:
    """Return the chunk in a payload.  It is not verified yet.

    Raises: Untrusted if the payload is malformed or exceeds a limit.
    """
    if len(payload) > MESSAGE_BYTES:
        raise Untrusted(f"The chunk has {len(payload)} bytes; at most {MESSAGE_BYTES} are allowed.")
    message = push_pb2.Chunk()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise Untrusted("The payload is not a protobuf Chunk, or its end is missing.") from error
    _check_format("chunk", message.format)
    return Chunk(_from_message(message.name), message.content)


def _prefix(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:HASH_BYTES]


def _to_message(name: ChunkName) -> push_pb2.ChunkName:
    return push_pb2.ChunkName(sha256=bytes.fromhex(name.sha256), index=name.index)


def _from_message(message: push_pb2.ChunkName) -> ChunkName:
    if len(message.sha256) != hashlib.sha256().digest_size:
        raise Untrusted(f"A chunk is named by {len(message.sha256)} bytes of a hash; it must be a whole SHA-256.")
    return ChunkName(message.sha256.hex(), message.index)


def _check_format(what: str, found: int) -> None:
    if found != FORMAT:
        raise Untrusted(f"The {what} has format {found}, and this side reads format {FORMAT}: update the older side.")
