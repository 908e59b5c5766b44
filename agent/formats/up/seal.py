"""Seal a batch: sign it, and then encrypt it with HPKE.  Pure.

Invariant: only the fleet can open a batch, and the content proves which vehicle made it.  A broker, a network or a
thief of the vehicle's flash learns only the header and the size of a batch.  If a byte of header or body changes,
`unseal` refuses the batch.

    info       = "hu/v1/seal", 0 || header
    envelope   = Envelope{header, HPKE.seal(recipient, info, SignedBody{signature, body})}
    signature  = ECDSA-P256-SHA256(device key, "hu/v1/sign", 0 || uint32 header length || header || body)

HPKE is RFC 9180 in base mode, single shot (one fresh encapsulation for each batch), with HKDF-SHA256.  The AEAD is
ChaCha20-Poly1305:

- On ARM cores without the cryptographic extension (Cortex-A7, A9, the A72 of a Raspberry Pi 4) ChaCha20-Poly1305 is
  several times faster than AES-GCM in software, and constant in time by construction.
- On cores with the extension, both take far less time than the other work for a batch (60 KB on x86-64 with AES
  instructions: 0.15 ms for ChaCha20-Poly1305, 0.13 ms for AES-GCM).
- ChaCha20-Poly1305 has a 256-bit key, which matches ML-KEM-768.  Against a quantum computer, AES-128 would be weaker
  than ML-KEM-768.

The signature is ECDSA P-256 because TPMs and secure elements have it.  A signature is verified when the batch
arrives, so the algorithm can be replaced before quantum computers break it.  A sealed batch, however, may be recorded
today and attacked in twenty years.  The key exchange must therefore be safe already now, which is the purpose of the
hybrid post-quantum suite (MLKEM768_X25519).

The *digest* of a sealed batch is the first DIGEST_BYTES bytes of the SHA-256 of its envelope.  Two batches with one
number have different digests, because each is sealed with a fresh encapsulation.  Only the vehicle can give one batch
two digests: every byte of header and ciphertext is authenticated, and the envelope has only one encoding.

An envelope is larger than its body by the sum of three parts: HPKE (1,136 bytes for MLKEM768_X25519, 48 bytes for
X25519), the signature (about 72 bytes) and the header (about 130 bytes).
"""

import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from agent.errors import Untrusted
from agent.formats import telemetry_pb2 as pb
from agent.formats.topics import Lane, is_vehicle
from agent.formats.up.recipient import (
    SUITE_NAMES,
    SUITE_NUMBERS,
    SUITES,
    RecipientPrivateKey,
    RecipientPublicKey,
    SuiteName,
)

FORMAT: Final = 1
# Azure Event Grid accepts no larger message; batches are far smaller.
MAX_ENVELOPE_BYTES: Final = 512 * 1024
# 16 bytes resist an attacker who looks for another batch with the digest of a given one.  The vehicle itself could make
# two batches with one digest, but it would only lose one of its own batches.
DIGEST_BYTES: Final = 16
MAX_HEADER_BYTES: Final = 512
# An envelope exceeds its body by at most this size: HPKE of the larger suite, signature, header and framing.
SEAL_OVERHEAD_BYTES: Final = 1_136 + 264
_SEAL_DOMAIN: Final = b"hu/v1/seal\0"
_SIGN_DOMAIN: Final = b"hu/v1/sign\0"
_SIGNATURE: Final = ec.ECDSA(hashes.SHA256())
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")


_LANE_NUMBERS: Final[dict[Lane, pb.Lane]] = {
    Lane.EVENTS: pb.LANE_EVENTS,
    Lane.LIVE: pb.LANE_LIVE,
    Lane.BACKLOG: pb.LANE_BACKLOG,
}
_LANES: Final[dict[int, Lane]] = {number: lane for lane, number in _LANE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a batch, which is authenticated but not encrypted.

    Together with the digest of the envelope, `vehicle`, `epoch` and `seq` name the batch for ever.  `vehicle` is a UUID
    in lower case, `epoch` has 32 lower-case hex digits, and `seq` counts from 1.  `key_id` names the recipient's key.
    `sealed_at_us` is the time of the vehicle's wall clock (Unix epoch).

    A checkpoint is sent as a batch only if its window will never be sent, for example after a crash.  The `epoch` of
    such a batch is the id of the window.  The `epoch` of every other batch is the epoch of the vehicle's spool.
    """

    vehicle: str
    epoch: str
    seq: int
    lane: Lane
    key_id: str
    suite: SuiteName
    sealed_at_us: int


def digest_of(envelope: bytes) -> bytes:
    """Return the digest of a sealed batch."""
    return hashlib.sha256(envelope).digest()[:DIGEST_BYTES]


def seal(header: Header, body: bytes, device_key: ec.EllipticCurvePrivateKey, recipient: RecipientPublicKey) -> bytes:
    """Return the envelope of `body`.  Raises: ValueError if `header` is malformed or names another recipient."""
    if (header.suite, header.key_id) != (recipient.suite, recipient.key_id):
        raise ValueError(f"The header names key {header.key_id}, but the recipient has key {recipient.key_id}.")
    if (fault := _fault(header)) is not None:
        raise ValueError(fault)
    # The envelope carries these bytes as they are.  Serialising the header again might give other bytes, for which the
    # signature would not be valid.
    header_bytes = pb.Header(
        format=FORMAT,
        vehicle=header.vehicle,
        epoch=header.epoch,
        seq=header.seq,
        lane=_LANE_NUMBERS[header.lane],
        suite=SUITE_NUMBERS[header.suite],
        key_id=header.key_id,
        sealed_at_us=header.sealed_at_us,
    ).SerializeToString(deterministic=True)
    signature = device_key.sign(_signed(header_bytes, body), _SIGNATURE)
    signed_body = pb.SignedBody(signature=signature, body=body).SerializeToString(deterministic=True)
    ciphertext = SUITES[header.suite].encrypt(signed_body, recipient.key, info=_SEAL_DOMAIN + header_bytes)
    return _envelope(header_bytes, ciphertext)


def read_header(envelope: bytes) -> Header:
    """Return the header without authenticating it, unlike `unseal`.  Raises: Untrusted if the envelope is malformed."""
    return _open_envelope(envelope)[0]


def unseal(
    envelope: bytes, private: RecipientPrivateKey, *device_public_keys: ec.EllipticCurvePublicKey
) -> tuple[Header, bytes]:
    """Open an envelope and verify its signature, which must be from one of the device keys of its vehicle.

    A vehicle that has renewed its key may still send batches that it signed with an earlier one.

    Raises: Untrusted, naming the failed check.
    """
    header, header_bytes, signed_body = _decrypt(envelope, private)
    for key in device_public_keys:
        with contextlib.suppress(InvalidSignature):
            key.verify(signed_body.signature, _signed(header_bytes, signed_body.body), _SIGNATURE)
            return header, signed_body.body
    raise Untrusted(f"The signature is not from a device key that is registered for vehicle {header.vehicle}.")


def unseal_unverified(envelope: bytes, private: RecipientPrivateKey) -> tuple[Header, bytes]:
    """Open an envelope whose signature `unseal` has verified before, without verifying the signature again.

    Raises: Untrusted if the envelope cannot be opened.
    """
    header, _, signed_body = _decrypt(envelope, private)
    return header, signed_body.body


def _decrypt(envelope: bytes, private: RecipientPrivateKey) -> tuple[Header, bytes, pb.SignedBody]:
    header, header_bytes, ciphertext = _open_envelope(envelope)
    if (header.suite, header.key_id) != (private.suite, private.key_id):
        raise Untrusted(
            f"The batch is sealed to {header.suite} key {header.key_id}, not to our {private.suite} key "
            f"{private.key_id}: restore the other key, or enrol the vehicle again."
        )
    signed_body = pb.SignedBody()
    try:
        plaintext = SUITES[header.suite].decrypt(ciphertext, private.key, info=_SEAL_DOMAIN + header_bytes)
        signed_body.ParseFromString(plaintext)
    except InvalidTag as error:
        raise Untrusted("The seal does not open, because the header or the ciphertext was altered.") from error
    except DecodeError as error:
        raise Untrusted("The sealed content is not a protobuf SignedBody.") from error
    return header, header_bytes, signed_body


def _open_envelope(payload: bytes) -> tuple[Header, bytes, bytes]:
    # The size is checked before parsing, so that a flood of large messages costs little.
    if len(payload) > MAX_ENVELOPE_BYTES:
        raise Untrusted(f"The envelope has {len(payload)} bytes, which exceeds {MAX_ENVELOPE_BYTES}.")
    envelope, message = pb.Envelope(), pb.Header()
    try:
        envelope.ParseFromString(payload)
        if len(envelope.header) > MAX_HEADER_BYTES:
            raise Untrusted(f"The header has {len(envelope.header)} bytes, which exceeds {MAX_HEADER_BYTES}.")
        message.ParseFromString(envelope.header)
    except DecodeError as error:
        raise Untrusted("The payload is not a protobuf Envelope.") from error
    # Protobuf reads many encodings of one message, and each would have another digest.
    if _envelope(envelope.header, envelope.ciphertext) != payload:
        raise Untrusted(
            "The envelope is not encoded in the one shortest way, so the broker or a client has altered it."
        )
    if message.format != FORMAT:
        raise Untrusted(
            f"The envelope has format {message.format}, and this receiver reads format {FORMAT}: update the receiver."
        )
    if message.suite not in SUITE_NAMES or message.lane not in _LANES:
        raise Untrusted(f"The header has an unknown suite or lane: suite {message.suite}, lane {message.lane}.")
    header = Header(
        message.vehicle,
        message.epoch,
        message.seq,
        _LANES[message.lane],
        message.key_id,
        SUITE_NAMES[message.suite],
        message.sealed_at_us,
    )
    if (fault := _fault(header)) is not None:
        raise Untrusted(fault)
    return header, envelope.header, envelope.ciphertext


def _envelope(header: bytes, ciphertext: bytes) -> bytes:
    return pb.Envelope(header=header, ciphertext=ciphertext).SerializeToString(deterministic=True)


def _fault(header: Header) -> str | None:
    if not is_vehicle(header.vehicle):
        return f"The vehicle {header.vehicle[:50]!r} in the header is not a UUID in lower case."
    if _EPOCH.fullmatch(header.epoch) is None:
        return f"The epoch {header.epoch[:50]!r} in the header is not 32 lower-case hex digits."
    if header.seq < 1:
        return "The sequence number in the header is below 1."
    return None


def _signed(header_bytes: bytes, body: bytes) -> bytes:
    # The length separates header and body, so no other division of the same bytes has the same signature.
    return b"".join((_SIGN_DOMAIN, len(header_bytes).to_bytes(4, "big"), header_bytes, body))
