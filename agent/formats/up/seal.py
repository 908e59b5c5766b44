"""Sign, then HPKE: only the fleet opens what leaves the vehicle, and it proves which vehicle made it.  Pure.

Invariant: the broker, the network and whoever takes the vehicle's flash learn the header and the size of a
batch, nothing else; and no byte of header or body changes without `unseal` refusing.

    info       = "hu/v1/seal", 0 || header
    envelope   = Envelope{header, HPKE.seal(recipient, info, SignedBody{signature, body})}
    signature  = ECDSA-P256-SHA256(device key, "hu/v1/sign", 0 || uint32 header length || header || body)

HPKE is RFC 9180 in base mode, single shot (one fresh encapsulation a batch), with HKDF-SHA256.  The AEAD is
ChaCha20-Poly1305: on ARM cores without the cryptographic extension (Cortex-A7, A9, the A72 of a Raspberry Pi
4) it is several times faster than AES-GCM in software and constant in time by construction; on cores with it
both are far below what a batch costs otherwise (60 KB, x86-64 with AES instructions: 0.15 ms against 0.13
ms); and its 256-bit key matches ML-KEM-768, where AES-128 would be the weaker half against a quantum
computer.  ECDSA P-256 for the signature because TPMs and secure elements have it; it protects today's
authenticity and can be replaced later, unlike what is recorded today and opened in twenty years.

Overhead over the body: 1,136 bytes (MLKEM768_X25519) or 48 (X25519) of HPKE, about 72 of signature, about 130
of header.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from google.protobuf.message import DecodeError

from agent.errors import Permanent, Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.topics import Lane, is_vehicle

FORMAT: Final = 1
MAX_ENVELOPE_BYTES: Final = 512 * 1024  # what Azure Event Grid carries; batches are far smaller
MAX_HEADER_BYTES: Final = 512
MAX_PIECES: Final = 1_000_000  # of one window, before or after a batch
SEAL_OVERHEAD_BYTES: Final = 1_136 + 264  # largest suite, signature, header and framing: envelope minus body, at most
_SEAL_DOMAIN: Final = b"hu/v1/seal\0"
_SIGN_DOMAIN: Final = b"hu/v1/sign\0"
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")
_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1_184

SuiteName = Literal["MLKEM768_X25519", "X25519"]
_KEMS: Final[dict[str, hpke.KEM]] = {"MLKEM768_X25519": hpke.KEM.MLKEM768_X25519, "X25519": hpke.KEM.X25519}
_SUITES: Final = {
    name: hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305) for name, kem in _KEMS.items()
}
_SUITE_NUMBERS: Final[dict[SuiteName, pb.Suite]] = {
    "MLKEM768_X25519": pb.SUITE_MLKEM768_X25519,
    "X25519": pb.SUITE_X25519,
}
_LANE_NUMBERS: Final[dict[Lane, pb.Lane]] = {
    Lane.EVENTS: pb.LANE_EVENTS,
    Lane.LIVE: pb.LANE_LIVE,
    Lane.BACKLOG: pb.LANE_BACKLOG,
}
_LANES: Final[dict[int, Lane]] = {number: lane for lane, number in _LANE_NUMBERS.items()}
_SUITE_NAMES: Final[dict[int, SuiteName]] = {number: name for name, number in _SUITE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in clear on a batch, authenticated.  (vehicle, epoch, seq) identifies the batch for ever.

    `vehicle` is a UUID in lower case, `epoch` 32 lower-case hex digits, `seq` counts from 1, `key_id` names
    the recipient's key, `sealed_at_us` is the vehicle's wall clock (Unix epoch).  Of a window that was cut and
    replaces batches, other pieces have the `pieces_before` numbers before this one and the `pieces_after` behind it.
    """

    vehicle: str
    epoch: str
    seq: int
    lane: Lane
    key_id: str
    suite: SuiteName
    sealed_at_us: int
    pieces_before: int = 0
    pieces_after: int = 0


@dataclass(frozen=True, slots=True)
class RecipientPublicKey:
    """The fleet's public key, which every vehicle carries (`hpke.pub.json`).

    `raw` is the public key: for MLKEM768_X25519 ML-KEM-768's 1,184 bytes, then X25519's 32; for X25519 its
    32.
    """

    suite: SuiteName
    raw: bytes
    key: hpke.MLKEM768X25519PublicKey | x25519.X25519PublicKey

    @property
    def key_id(self) -> str:
        """First 16 hex digits of SHA-256 of the public key."""
        return _key_id(self.raw)

    def to_json(self) -> bytes:
        """The content of `hpke.pub.json`."""
        return _to_json(self.suite, self.key_id, "public_key", self.raw)

    @staticmethod
    def from_json(document: bytes, source: str) -> "RecipientPublicKey":
        """Read `hpke.pub.json`; `source` names it in messages.  Raises Permanent."""
        suite, key_id, raw = _from_json(document, "public_key", source)
        try:
            public = _public_key(suite, raw)
        except ValueError as error:
            raise Permanent(f"{source}: public_key is no {suite} key ({error}): fetch it again") from error
        if public.key_id != key_id:
            raise Permanent(f"{source}: key_id {key_id} does not belong to public_key ({public.key_id})")
        return public


@dataclass(frozen=True, slots=True)
class RecipientPrivateKey:
    """The fleet's private key (`keys/hpke.json`), which never leaves the cloud side.

    `raw` is the secret: for MLKEM768_X25519 ML-KEM-768's seed (64 bytes), then X25519's 32; for X25519 its
    32.
    """

    suite: SuiteName
    raw: bytes
    key: hpke.MLKEM768X25519PrivateKey | x25519.X25519PrivateKey
    public: RecipientPublicKey

    def __repr__(self) -> str:
        return f"RecipientPrivateKey(suite={self.suite!r}, key_id={self.key_id!r})"  # never the secret

    @property
    def key_id(self) -> str:
        """That of the public key."""
        return self.public.key_id

    @staticmethod
    def generate(suite: SuiteName = "MLKEM768_X25519") -> "RecipientPrivateKey":
        """A fresh key of `suite`."""
        secret = x25519.X25519PrivateKey.generate().private_bytes_raw()
        if suite == "MLKEM768_X25519":
            secret = mlkem.MLKEM768PrivateKey.generate().private_bytes_raw() + secret
        return _private_key(suite, secret)

    def to_json(self) -> bytes:
        """The content of `keys/hpke.json`: secret."""
        return _to_json(self.suite, self.key_id, "private_key", self.raw)

    @staticmethod
    def from_json(document: bytes, source: str) -> "RecipientPrivateKey":
        """Read `keys/hpke.json`; `source` names it in messages.  Raises Permanent."""
        suite, key_id, raw = _from_json(document, "private_key", source)
        try:
            private = _private_key(suite, raw)
        except ValueError as error:
            raise Permanent(f"{source}: private_key is no {suite} key: restore it from backup") from error
        if private.key_id != key_id:
            raise Permanent(f"{source}: key_id {key_id} does not belong to private_key ({private.key_id})")
        return private


def seal(header: Header, body: bytes, device_key: ec.EllipticCurvePrivateKey, recipient: RecipientPublicKey) -> bytes:
    """The envelope of `body`.  Raises ValueError where `header` is malformed or names another recipient."""
    if (header.suite, header.key_id) != (recipient.suite, recipient.key_id):
        raise ValueError(f"header names key {header.key_id}, the recipient's is {recipient.key_id}")
    if (fault := _fault(header)) is not None:
        raise ValueError(fault)
    header_bytes = pb.Header(
        format=FORMAT,
        vehicle=header.vehicle,
        epoch=header.epoch,
        seq=header.seq,
        lane=_LANE_NUMBERS[header.lane],
        suite=_SUITE_NUMBERS[header.suite],
        key_id=header.key_id,
        sealed_at_us=header.sealed_at_us,
        pieces_before=header.pieces_before,
        pieces_after=header.pieces_after,
    ).SerializeToString(deterministic=True)
    signature = device_key.sign(_signed(header_bytes, body), _SIGNATURE)
    signed_body = pb.SignedBody(signature=signature, body=body).SerializeToString(deterministic=True)
    ciphertext = _SUITES[header.suite].encrypt(signed_body, recipient.key, info=_SEAL_DOMAIN + header_bytes)
    return pb.Envelope(header=header_bytes, ciphertext=ciphertext).SerializeToString(deterministic=True)


def read_header(envelope: bytes) -> Header:
    """The header, checked in form but NOT authenticated: only `unseal` does that.  Raises Untrusted."""
    return _open_envelope(envelope)[0]


def unseal(
    envelope: bytes, private: RecipientPrivateKey, device_public_key: ec.EllipticCurvePublicKey
) -> tuple[Header, bytes]:
    """Open an envelope and verify who made it.  Raises Untrusted and says which of the two failed."""
    header, header_bytes, signed_body = _decrypt(envelope, private)
    try:
        device_public_key.verify(signed_body.signature, _signed(header_bytes, signed_body.body), _SIGNATURE)
    except InvalidSignature as error:
        raise Untrusted(f"signature is not that of vehicle {header.vehicle}'s registered device key") from error
    return header, signed_body.body


def unseal_unverified(envelope: bytes, private: RecipientPrivateKey) -> tuple[Header, bytes]:
    """Open an envelope that `unseal` accepted before: who made it is NOT verified again.  Raises Untrusted."""
    header, _, signed_body = _decrypt(envelope, private)
    return header, signed_body.body


def _decrypt(envelope: bytes, private: RecipientPrivateKey) -> tuple[Header, bytes, pb.SignedBody]:
    header, header_bytes, ciphertext = _open_envelope(envelope)
    if (header.suite, header.key_id) != (private.suite, private.key_id):
        raise Untrusted(
            f"batch is sealed to {header.suite} key {header.key_id}, not to ours "
            f"({private.suite} {private.key_id}): restore that key, or enrol the vehicle again"
        )
    signed_body = pb.SignedBody()
    try:
        plaintext = _SUITES[header.suite].decrypt(ciphertext, private.key, info=_SEAL_DOMAIN + header_bytes)
        signed_body.ParseFromString(plaintext)
    except InvalidTag as error:
        raise Untrusted("seal does not open: header or ciphertext was altered") from error
    except DecodeError as error:
        raise Untrusted("sealed content is not a signed body of ours") from error
    return header, header_bytes, signed_body


def _open_envelope(payload: bytes) -> tuple[Header, bytes, bytes]:
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise Untrusted(f"envelope of {len(payload)} bytes exceeds {MAX_ENVELOPE_BYTES}")
    envelope, message = pb.Envelope(), pb.Header()
    try:
        envelope.ParseFromString(payload)
        if len(envelope.header) > MAX_HEADER_BYTES:
            raise Untrusted(f"header of {len(envelope.header)} bytes exceeds {MAX_HEADER_BYTES}")
        message.ParseFromString(envelope.header)
    except DecodeError as error:
        raise Untrusted("payload is not an envelope of ours") from error
    if message.format != FORMAT:
        raise Untrusted(f"envelope has format {message.format}, we read {FORMAT}: update the receiver")
    if message.suite not in _SUITE_NAMES or message.lane not in _LANES:
        raise Untrusted(f"header names unknown suite {message.suite} or lane {message.lane}")
    header = Header(
        message.vehicle,
        message.epoch,
        message.seq,
        _LANES[message.lane],
        message.key_id,
        _SUITE_NAMES[message.suite],
        message.sealed_at_us,
        message.pieces_before,
        message.pieces_after,
    )
    if (fault := _fault(header)) is not None:
        raise Untrusted(fault)
    return header, envelope.header, envelope.ciphertext


def _fault(header: Header) -> str | None:
    if not is_vehicle(header.vehicle):
        return f"header's vehicle {header.vehicle[:50]!r} is not a UUID in lower case"
    if _EPOCH.fullmatch(header.epoch) is None:
        return f"header's epoch {header.epoch[:50]!r} is not 32 lower-case hex digits"
    if header.seq < 1:
        return "header's seq is below 1"
    if header.pieces_before >= header.seq or max(header.pieces_before, header.pieces_after) > MAX_PIECES:
        return (
            f"header's seq {header.seq} cannot have {header.pieces_before} pieces before, {header.pieces_after} after"
        )
    return None


@lru_cache(maxsize=16)  # asked for each batch
def _key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def _signed(header_bytes: bytes, body: bytes) -> bytes:
    return b"".join((_SIGN_DOMAIN, len(header_bytes).to_bytes(4, "big"), header_bytes, body))


def _public_key(suite: SuiteName, raw: bytes) -> RecipientPublicKey:
    """Raises ValueError."""
    if suite == "X25519":
        return RecipientPublicKey(suite, raw, x25519.X25519PublicKey.from_public_bytes(raw))
    key = hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
    )
    return RecipientPublicKey(suite, raw, key)


def _private_key(suite: SuiteName, raw: bytes) -> RecipientPrivateKey:
    """Raises ValueError."""
    if suite == "X25519":
        only = x25519.X25519PrivateKey.from_private_bytes(raw)
        return RecipientPrivateKey(suite, raw, only, _public_key(suite, only.public_key().public_bytes_raw()))
    post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED_BYTES])
    classical = x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED_BYTES:])
    public = post_quantum.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
    key = hpke.MLKEM768X25519PrivateKey(post_quantum, classical)
    return RecipientPrivateKey(suite, raw, key, _public_key(suite, public))


def _to_json(suite: str, key_id: str, name: str, raw: bytes) -> bytes:
    document = {"suite": suite, "key_id": key_id, name: base64.b64encode(raw).decode()}
    return json.dumps(document, indent=2).encode() + b"\n"


def _from_json(document: bytes, name: str, source: str) -> tuple[SuiteName, str, bytes]:
    try:
        parsed = json.loads(document)
        suite, key_id, raw = (
            parsed["suite"],
            str(parsed["key_id"]),
            base64.b64decode(parsed[name], validate=True),
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise Permanent(f"{source}: not a key file with suite, key_id and {name} in base64: fetch it again") from error
    if not isinstance(suite, str) or suite not in _SUITE_NUMBERS:
        raise Permanent(f"{source}: suite {suite!r} is none of {', '.join(_SUITE_NUMBERS)}")
    return suite, key_id, raw
