"""The push channel's messages: the vehicle's request, and the bundle of TUF files that answers it.  Pure.

    hu/v1/sync/<vehicle>   protobuf SyncRequest: the versions and the files that the vehicle holds
    hu/v1/push/<vehicle>   zstd of a protobuf Bundle: files of the TUF repository by name, as many as are missing

A bundle travels in one MQTT message, so one that is too large is not built.

Invariant: whatever arrives becomes a value of this module or raises Untrusted, and memory is bounded before anything is
decompressed or parsed.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import zstandard
from google.protobuf.message import DecodeError

from agent.errors import Permanent, Untrusted
from agent.formats import push_pb2
from agent.formats.topics import is_vehicle

FORMAT: Final = 1
BUNDLE_BYTES: Final = 100_000
"""The size limit of one MQTT message: within the 128 KB of AWS IoT Core, with room for the topic."""
CONTENT_BYTES: Final = 4_000_000
"""The size limit after decompression, forty times the message; a larger content is a decompression bomb."""
FILES: Final = 512
"""The greatest number of files: room for every root since the factory, and for hundreds of documents."""
REQUEST_BYTES: Final = 8_000
HAVE_BYTES: Final = 8
"""How much of a hash names a file that is held.  A collision costs a request and never a wrong file: TUF checks all."""
HAVE_FILES: Final = 256
TIMESTAMP: Final = "metadata/timestamp.json"
SIGNED_AT: Final = "x-signed-at"
"""Our own field of the signed timestamp: the Unix time of the signature, in seconds."""

_NAME: Final = re.compile(
    r"metadata/(timestamp|[1-9][0-9]{0,9}\.(root|snapshot|targets))\.json"
    r"|targets/([A-Za-z0-9_-]{1,64}/)?[0-9a-f]{64}\.[A-Za-z0-9_.:-]{1,128}"
)


class TruncatedBundle(Untrusted):
    """The end of the bundle is missing."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the four top-level TUF roles; 0 is none."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The versions and files that a vehicle holds.

    `applied` and `refused` are versions of targets.  `have` are prefixes of the SHA-256 digests of target files.
    """

    vehicle: str
    held: Versions
    applied: int = 0
    refused: int = 0
    have: tuple[bytes, ...] = ()


def have(content: bytes) -> bytes:
    """Return the prefix by which a request names a target file that need not be sent again."""
    return hashlib.sha256(content).digest()[:HAVE_BYTES]


def build_request(request: SyncRequest) -> bytes:
    """Return the payload for `hu/v1/sync/<vehicle>`.  Files beyond HAVE_FILES are not named, and are sent again."""
    held = request.held
    message = push_pb2.SyncRequest(
        format=FORMAT,
        vehicle=request.vehicle,
        held=push_pb2.RoleVersions(
            root=held.root, timestamp=held.timestamp, snapshot=held.snapshot, targets=held.targets
        ),
        applied=request.applied,
        refused=request.refused,
        # Naming fewer files costs bytes of the answer, never correctness.
        have=request.have[:HAVE_FILES],
    )
    return message.SerializeToString(deterministic=True)


def parse_request(payload: bytes) -> SyncRequest:
    """Read a vehicle's request.  Raises: Untrusted."""
    if len(payload) > REQUEST_BYTES:
        raise Untrusted(f"sync request of {len(payload)} bytes; at most {REQUEST_BYTES} are read")
    message = push_pb2.SyncRequest()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise Untrusted("sync request is not a protobuf SyncRequest") from error
    if message.format != FORMAT:
        raise Untrusted(_unknown_format("sync request", message.format))
    if not is_vehicle(message.vehicle):
        raise Untrusted(f"sync request of {message.vehicle[:60]!r}, which is no vehicle's pseudonym")
    if len(message.have) > HAVE_FILES or any(len(prefix) != HAVE_BYTES for prefix in message.have):
        raise Untrusted(f"sync request lists files held, but not at most {HAVE_FILES} of {HAVE_BYTES} bytes each")
    held = message.held
    return SyncRequest(
        vehicle=message.vehicle,
        held=Versions(held.root, held.timestamp, held.snapshot, held.targets),
        applied=message.applied,
        refused=message.refused,
        have=tuple(message.have),
    )


def build_bundle(files: Mapping[str, bytes]) -> bytes:
    """Return the payload for `hu/v1/push/<vehicle>`.  Equal files give equal bytes.

    Raises: Permanent where the payload would be too large, or a file has a name that no repository has.
    """
    for name in files:
        if _NAME.fullmatch(name) is None:
            raise Permanent(f"{name!r} is no file of a push bundle: letters, digits, '_', '-', '.' and ':' only")
    plain = push_pb2.Bundle(format=FORMAT, files=dict(files)).SerializeToString(deterministic=True)
    # Without the checksum, which the signatures make needless, a bundle is 4 bytes shorter.
    payload = zstandard.ZstdCompressor(level=19, write_checksum=False).compress(plain)
    if len(payload) > BUNDLE_BYTES or len(plain) > CONTENT_BYTES or len(files) > FILES:
        raise Permanent(
            f"the bundle has {len(files)} files and {len(payload)} bytes (compressed), but one push may have at most "
            f"{FILES} files and {BUNDLE_BYTES} bytes; publish fewer or smaller documents"
        )
    return payload


def parse_bundle(payload: bytes) -> dict[str, bytes]:
    """Return the files of a bundle by name.  Nothing is verified yet.

    Raises: TruncatedBundle where the end is missing, Untrusted for anything else that is not a bundle.
    """
    if len(payload) > BUNDLE_BYTES:
        raise Untrusted(f"bundle of {len(payload)} bytes; at most {BUNDLE_BYTES} are read")
    try:
        # The announced size is from outside, so reading stops one byte behind it and behind our own limit.
        size = zstandard.frame_content_size(payload)
        # The window is what decompression allocates; a frame may ask for up to 2 GB.
        with zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(payload) as reader:
            plain = reader.read(min(max(size, 0), CONTENT_BYTES) + 1)
    except zstandard.ZstdError as error:
        raise Untrusted("bundle is not a zstd frame") from error
    if not 0 <= size <= CONTENT_BYTES or len(plain) > size:
        raise Untrusted(f"bundle announces {size} bytes of content; it must say 0 to {CONTENT_BYTES}, and be right")
    if len(plain) < size:
        raise TruncatedBundle(f"bundle ends after {len(plain)} of {size} bytes of content")
    message = push_pb2.Bundle()
    try:
        message.ParseFromString(plain)
    except DecodeError as error:
        raise Untrusted("bundle is not a protobuf Bundle") from error
    if message.format != FORMAT:
        raise Untrusted(_unknown_format("bundle", message.format))
    if len(message.files) > FILES:
        raise Untrusted(f"bundle of {len(message.files)} files; at most {FILES} are read")
    # A name becomes a path in the verifier, so it must not lead out of its folder.
    for name in message.files:
        if _NAME.fullmatch(name) is None:
            raise Untrusted(f"bundle has a file named {name[:120]!r}, which no repository has")
    return dict(message.files)


def _unknown_format(what: str, found: int) -> str:
    """Return the message for a `what` of another format."""
    return f"{what} has format {found}, and this side reads format {FORMAT}: update the older of vehicle and fleet"
