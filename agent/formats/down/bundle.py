"""Build and parse the messages of the push channel: the request of a vehicle, and the bundle that answers it.  Pure.

    hu/v1/sync/<vehicle>   protobuf SyncRequest: the versions and the files that the vehicle holds
    hu/v1/push/<vehicle>   zstd of a protobuf Bundle: the files of the TUF repository that the vehicle lacks, by name

A bundle is sent in one MQTT message, so its size is limited.

Invariant: a payload from outside becomes a value of this module or raises Untrusted.  Its size is checked before it is
decompressed or parsed, so memory is bounded.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

import msgspec
import zstandard
from google.protobuf.message import DecodeError

from agent.errors import Permanent, Untrusted
from agent.formats import push_pb2
from agent.formats.down.audience import VALUE_CHARS
from agent.formats.topics import is_vehicle

FORMAT: Final = 1
BUNDLE_BYTES: Final = 100_000
"""The size limit of a compressed bundle: within the 128 KB of an AWS IoT Core message, with room for the topic."""
CONTENT_BYTES: Final = 4_000_000
"""The size limit of a bundle after decompression: forty times BUNDLE_BYTES, to stop decompression bombs."""
FILES: Final = 512
"""A bundle has at most this many files: every root metadata file since the factory, and hundreds of documents."""
REQUEST_BYTES: Final = 8_000
HAVE_BYTES: Final = 8
"""The length of the hash prefix that names a held file.  A collision can delay a file but never yield a wrong one,
because TUF checks every file."""
HAVE_FILES: Final = 256
SHARED_LEVEL: Final = 19
"""The level of zstd for a bundle that thousands of vehicles get."""
OWN_LEVEL: Final = 6
"""The level of zstd for a bundle with a vehicle's own bin.  It takes some 5 ms in place of 100 ms, and after a nudge
thousands of vehicles ask for such bundles."""
TIMESTAMP: Final = "metadata/timestamp.json"
SIGNED_AT: Final = "x-signed-at"
"""The name of the field that we add to the signed timestamp: the Unix time of the signature, in seconds."""

_NAME: Final = re.compile(
    r"metadata/(timestamp|[1-9][0-9]{0,9}\.(root|snapshot|targets|bin-[0-9a-f]{1,8}))\.json"
    r"|targets/([A-Za-z0-9_-]{1,64}/){0,2}[0-9a-f]{64}\.[A-Za-z0-9_.:-]{1,128}"
)


class TruncatedBundle(Untrusted):
    """Raised if the last bytes of a bundle are missing."""


class Versions(msgspec.Struct, frozen=True):
    """Holds the versions of the four top-level TUF roles, and of the vehicle's own hash bin; 0 means none."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    targets: int = 0
    bin: int = 0


class SyncRequest(msgspec.Struct, frozen=True):
    """A vehicle's request, which lists the versions and files that the vehicle holds.

    `held` has the versions of the TUF metadata that the vehicle holds.  `applied` is the version of the TUF targets in
    force, or 0 if there is none.  `refused` is the newest version of the targets that the vehicle verified but could
    not use, or 0 if there is none.  `have` has the hash prefixes of the target files that the vehicle holds.
    `software` is the version of the vehicle's software, which decides which documents are for it; "" means not known.
    """

    vehicle: str
    held: Versions
    applied: int = 0
    refused: int = 0
    have: tuple[bytes, ...] = ()
    software: str = ""


def have(content: bytes) -> bytes:
    """Return the hash prefix that names a held target file in a request, so that the fleet does not send it again."""
    return hashlib.sha256(content).digest()[:HAVE_BYTES]


def build_request(request: SyncRequest) -> bytes:
    """Return the payload for `hu/v1/sync/<vehicle>`.

    The payload names at most the first HAVE_FILES of the held files, so the fleet sends any other held file again.
    """
    held = request.held
    message = push_pb2.SyncRequest(
        format=FORMAT,
        vehicle=request.vehicle,
        held=push_pb2.RoleVersions(
            root=held.root, timestamp=held.timestamp, snapshot=held.snapshot, targets=held.targets, bin=held.bin
        ),
        applied=request.applied,
        refused=request.refused,
        # A file that is not named is sent again, so a limit here makes only the answer larger.
        have=request.have[:HAVE_FILES],
        software=request.software,
    )
    return message.SerializeToString(deterministic=True)


def parse_request(payload: bytes) -> SyncRequest:
    """Return the request in a payload.  Raises: Untrusted if the payload is malformed or exceeds a limit."""
    if len(payload) > REQUEST_BYTES:
        raise Untrusted(f"The sync request has {len(payload)} bytes; at most {REQUEST_BYTES} are allowed.")
    message = push_pb2.SyncRequest()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise Untrusted("The sync request is not a protobuf SyncRequest.") from error
    if message.format != FORMAT:
        raise Untrusted(_unknown_format("sync request", message.format))
    if not is_vehicle(message.vehicle):
        raise Untrusted(f"The sync request names {message.vehicle[:60]!r}, which is not the pseudonym of a vehicle.")
    if len(message.have) > HAVE_FILES or any(len(prefix) != HAVE_BYTES for prefix in message.have):
        raise Untrusted(
            f"The sync request must list at most {HAVE_FILES} held files, and name each by {HAVE_BYTES} bytes of its "
            "hash."
        )
    if len(message.software) > VALUE_CHARS or not message.software.isprintable():
        raise Untrusted(f"The sync request names software {message.software[:60]!r}, which is not a version.")
    held = message.held
    return SyncRequest(
        vehicle=message.vehicle,
        held=Versions(held.root, held.timestamp, held.snapshot, held.targets, held.bin),
        applied=message.applied,
        refused=message.refused,
        have=tuple(message.have),
        software=message.software,
    )


def build_bundle(files: Mapping[str, bytes], level: int = SHARED_LEVEL) -> bytes:
    """Return the payload for `hu/v1/push/<vehicle>`.  Equal files give equal bytes at the same `level` of zstd.

    Raises: Permanent if the payload would be too large, or if the name of a file is not allowed.
    """
    for name in files:
        if _NAME.fullmatch(name) is None:
            raise Permanent(
                f"{name!r} cannot be the name of a file in a bundle; use only letters, digits, '_', '-', '.' and ':'"
            )
    plain = push_pb2.Bundle(format=FORMAT, files=dict(files)).SerializeToString(deterministic=True)
    # The signatures make a checksum unnecessary; leaving it out saves 4 bytes.
    payload = zstandard.ZstdCompressor(level=level, write_checksum=False).compress(plain)
    if len(payload) > BUNDLE_BYTES or len(plain) > CONTENT_BYTES or len(files) > FILES:
        raise Permanent(
            f"The bundle has {len(files)} files and {len(payload)} bytes (compressed), but it may have at most {FILES} "
            f"files and {BUNDLE_BYTES} bytes; publish fewer or smaller documents."
        )
    return payload


def parse_bundle(payload: bytes) -> dict[str, bytes]:
    """Return the files of a bundle by name.  The files are not verified yet.

    Raises: TruncatedBundle if the end of the payload is missing; Untrusted if the payload is malformed in another way
    or exceeds a limit.
    """
    if len(payload) > BUNDLE_BYTES:
        raise Untrusted(f"The bundle has {len(payload)} bytes; at most {BUNDLE_BYTES} are allowed.")
    try:
        # The announced size may be wrong.  Reading one byte beyond it, or beyond our own limit, is enough to notice.
        size = zstandard.frame_content_size(payload)
        # A zstd frame may demand a decompression buffer (its window) of up to 2 GB, so this size has a limit.
        with zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(payload) as reader:
            plain = reader.read(min(max(size, 0), CONTENT_BYTES) + 1)
    except zstandard.ZstdError as error:
        raise Untrusted("The bundle is not a zstd frame.") from error
    if not 0 <= size <= CONTENT_BYTES or len(plain) > size:
        raise Untrusted(
            f"The bundle announces {size} bytes of content, which is false or above the limit ({CONTENT_BYTES})."
        )
    if len(plain) < size:
        raise TruncatedBundle(f"The bundle ends after {len(plain)} of {size} bytes of content.")
    message = push_pb2.Bundle()
    try:
        message.ParseFromString(plain)
    except DecodeError as error:
        raise Untrusted("The bundle is not a protobuf Bundle.") from error
    if message.format != FORMAT:
        raise Untrusted(_unknown_format("bundle", message.format))
    if len(message.files) > FILES:
        raise Untrusted(f"The bundle has {len(message.files)} files; at most {FILES} are allowed.")
    # A name becomes a path in the verifier, so it must not lead out of its folder.
    for name in message.files:
        if _NAME.fullmatch(name) is None:
            raise Untrusted(f"The bundle has a file with the name {name[:120]!r}, which is not allowed.")
    return dict(message.files)


def _unknown_format(what: str, found: int) -> str:
    """Return the error message for a payload of an unknown format; `what` is "sync request" or "bundle"."""
    return f"The {what} has format {found}, and this side reads format {FORMAT}: update the older side."
